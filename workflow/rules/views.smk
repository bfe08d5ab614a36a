# The grid, and its views: a number in a figure or a table stands in the grid. The grid itself is
# no output: Snakemake deletes those before a job, and it stays until a better one is written.
GRID = f"{plan.root}/grid.zarr"


rule grid:
    input:
        view("grid", CELLS),
    output:
        stamp=plan.stamp("grid"),
    log:
        f"{plan.root}/logs/grid.log",
    conda:
        "../envs/sgm.yaml"
    params:
        spec=lambda wildcards: plan.view_spec("grid"),
        grid=GRID,
    shell:
        "printf %s {params.spec:q} | python -m sgm.run grid --spec -"
        " --output grid={params.grid:q} stamp={output.stamp:q} > {log:q} 2>&1"


# One job for all figures: a process a figure would spend most of its time on imports.
rule figures:
    input:
        view("figures", plan.stamp("grid")),
    output:
        FIGURES,
        stamp=plan.stamp("figures"),
    log:
        f"{plan.root}/logs/figures.log",
    conda:
        "../envs/sgm.yaml"
    threads: workflow.cores
    params:
        spec=plan.view_spec("figures"),
        grid=GRID,
        folder=lambda wildcards, output: f"{Path(output.stamp).parents[1]}/figures",
    shell:
        "printf %s {params.spec:q} | python -m sgm.run figures --spec - --input grid={params.grid:q}"
        " --output figures={params.folder:q} stamp={output.stamp:q} --processes {threads}"
        " > {log:q} 2>&1"


rule tables:
    input:
        view("tables", plan.stamp("grid")),
    output:
        TABLES,
        stamp=plan.stamp("tables"),
    log:
        f"{plan.root}/logs/tables.log",
    conda:
        "../envs/sgm.yaml"
    params:
        spec=plan.view_spec("tables"),
        grid=GRID,
        folder=lambda wildcards, output: f"{Path(output.stamp).parents[1]}/tables",
    shell:
        "python -m sgm.run tables --spec {params.spec:q} --input grid={params.grid:q}"
        " --output tables={params.folder:q} stamp={output.stamp:q} > {log:q} 2>&1"


localrules:
    axes,
    figures,
    grid,
    tables,
