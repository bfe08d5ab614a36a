"""Results on disk: cell files (`cells`), gathered into one labelled dataset (`grid`)."""
