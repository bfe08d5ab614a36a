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
        "python -m sgm.run grid --spec {params.spec:q} --output grid={output.grid:q}"
        " > {log:q} 2>&1"


rule figure:
    input:
        grid=plan.pattern("grid"),
    output:
        png=report(
            f"{plan.root}/figures/{{figure}}.png",
            caption="../report/figures.rst",
            category="Figures",
        ),
        pdf=f"{plan.root}/figures/{{figure}}.pdf",
        csv=f"{plan.root}/figures/{{figure}}.csv",
    log:
        f"{plan.root}/logs/figures/{{figure}}.log",
    conda:
        "../envs/sgm.yaml"
    params:
        spec=plan.view_spec("figure"),
    shell:
        "python -m sgm.run figure --spec {params.spec:q} --input grid={input.grid:q}"
        " --output png={output.png:q} > {log:q} 2>&1"


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
    grid,
    figure,
    tables,
