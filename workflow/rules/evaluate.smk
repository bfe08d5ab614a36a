# Divergences of the generated samples, with their floors and standard errors.
rule evaluate:
    input:
        unpack(inputs("divergences")),
    output:
        divergences=plan.pattern("divergences"),
    log:
        log("divergences"),
    benchmark:
        times("divergences")
    conda:
        "../envs/sgm.yaml"
    params:
        spec=spec("divergences"),
        files=named,
    shell:
        "python -m sgm.run divergences --spec {params.spec:q} --seeds {wildcards.seeds}"
        " --input {params.files:q} --output divergences={output.divergences:q} > {log:q} 2>&1"


# The same divergences between true samples: what a perfect sampler would show.
rule floor:
    input:
        unpack(inputs("floors")),
    output:
        floors=plan.pattern("floors"),
    log:
        log("floors"),
    benchmark:
        times("floors")
    conda:
        "../envs/sgm.yaml"
    params:
        spec=spec("floors"),
        files=named,
    shell:
        "python -m sgm.run floors --spec {params.spec:q} --seeds {wildcards.seeds}"
        " --input {params.files:q} --output floors={output.floors:q} > {log:q} 2>&1"
