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
