# The grid, and its views: a number in a figure or a table stands in the grid.
rule grid:
    input:
        CELLS,
    output:
        grid=plan.pattern("grid"),
    log:
        log("grid"),
    conda:
        "../envs/sgm.yaml"
    params:
        spec=plan.view_spec("grid"),
    shell:
        "printf %s {params.spec:q} | python -m sgm.run grid --spec - --output grid={output.grid:q}"
        " > {log:q} 2>&1"


# One job for all figures: a process a figure would spend most of its time on imports.
rule figures:
    input:
        grid=plan.pattern("grid"),
    output:
        report(
            [path for path in FIGURES if path.endswith(".png")],
            caption="../report/figures.rst",
            category="Figures",
        ),
        [path for path in FIGURES if not path.endswith(".png")],
    log:
        f"{plan.root}/logs/figures.log",
    conda:
        "../envs/sgm.yaml"
    threads: workflow.cores
    params:
        spec=plan.view_spec("figures"),
        folder=lambda wildcards, output: os.path.commonpath(output),
    shell:
        "printf %s {params.spec:q} | python -m sgm.run figures --spec - --input grid={input.grid:q}"
        " --output figures={params.folder:q} --processes {threads} > {log:q} 2>&1"


rule tables:
    input:
        grid=plan.pattern("grid"),
    output:
        report(TABLES, caption="../report/tables.rst", category="Tables"),
    log:
        f"{plan.root}/logs/tables.log",
    conda:
        "../envs/sgm.yaml"
    params:
        spec=plan.view_spec("tables"),
        folder=lambda wildcards, output: os.path.commonpath(output),
    shell:
        "python -m sgm.run tables --spec {params.spec:q} --input grid={input.grid:q}"
        " --output tables={params.folder:q} > {log:q} 2>&1"


localrules:
    axes,
    figures,
    grid,
    tables,
