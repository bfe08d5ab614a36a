# One training sample per (target, seed), shared by all schedules.
rule data:
    input:
        unpack(inputs("data")),
    output:
        data=plan.pattern("data"),
    log:
        log("data"),
    benchmark:
        times("data")
    conda:
        "../envs/sgm.yaml"
    params:
        spec=spec("data"),
    shell:
        "python -m sgm.run data --spec {params.spec:q} --seeds {wildcards.seeds}"
        " --output data={output.data:q} > {log:q} 2>&1"
