# The networks of a block of seeds, trained in one job.
rule train:
    input:
        unpack(inputs("network")),
    output:
        network=plan.pattern("network"),
        training=plan.pattern("training"),
    log:
        log("network"),
    benchmark:
        times("network")
    conda:
        "../envs/sgm.yaml"
    resources:
        device=study.device,
    params:
        spec=spec("network"),
        files=named,
    shell:
        "python -m sgm.run network --spec {params.spec:q} --seeds {wildcards.seeds}"
        " --device {resources.device} --input {params.files:q}"
        " --output network={output.network:q} training={output.training:q} > {log:q} 2>&1"
