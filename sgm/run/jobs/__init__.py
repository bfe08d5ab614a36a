"""What jobs do: stages, which make numbers, and views, which gather and draw them.

`stages.STAGES` and `views.VIEWS` are what `python -m sgm.run` calls by name.
"""
