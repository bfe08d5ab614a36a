# One study: its grid, figures and tables. `snakemake --cores all` runs config/config.yaml,
# `--configfile config/studies/NAME.yaml` another study instead of it.
from snakemake.logging import logger
from snakemake.utils import min_version

from sgm.shipped import checkout

min_version("9.11")


if not workflow.overwrite_configfiles:

    configfile: "config/config.yaml"


include: "workflow/rules/study.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/sample.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/theory.smk"
include: "workflow/rules/views.smk"


rule all:
    default_target: True
    input:
        [plan.stamp(view) for view in ("grid", "figures", "tables")],
        FIGURES,
        TABLES,
        CELLS,
        NETWORKS,


localrules:
    all,


onsuccess:
    answers = Path(plan.root, "tables/answers.txt")
    if answers.exists():  # not where other files were asked for
        logger.info(answers.read_text(encoding="utf-8").rstrip())
    report = (
        f"make report STUDY={plan.root}"
        if checkout()
        else f"sgm report {plan.root}"
    )
    logger.info(
        f"The results are in {plan.root}; `{report}` puts them on one page."
    )
