# Generated samples of a block of seeds; deleted once they are evaluated, unless the study
# keeps them.
rule sample:
    input:
        unpack(inputs("samples")),
    output:
        samples=(
            plan.pattern("samples")
            if study.keep_samples
            else temp(plan.pattern("samples"))
        ),
    log:
        log("samples"),
    benchmark:
        times("samples")
    conda:
        "../envs/sgm.yaml"
    resources:
        device=study.device,
    params:
        spec=spec("samples"),
        files=named,
    shell:
        "python -m sgm.run samples --spec {params.spec:q} --seeds {wildcards.seeds}"
        " --device {resources.device} --input {params.files:q}"
        " --output samples={output.samples:q} > {log:q} 2>&1"


# A long run of the exact-score chain, of a target that is not Gaussian: no seed, no recipe.
rule reference:
    input:
        unpack(inputs("reference")),
    output:
        reference=plan.pattern("reference"),
    log:
        log("reference"),
    benchmark:
        times("reference")
    conda:
        "../envs/sgm.yaml"
    resources:
        device=study.device,
    params:
        spec=spec("reference"),
    shell:
        "python -m sgm.run reference --spec {params.spec:q} --device {resources.device}"
        " --output reference={output.reference:q} > {log:q} 2>&1"


# A few rows at chosen times, on their way from data to noise and back.
rule picture:
    input:
        unpack(inputs("pictures")),
    output:
        pictures=plan.pattern("pictures"),
    log:
        log("pictures"),
    benchmark:
        times("pictures")
    conda:
        "../envs/sgm.yaml"
    resources:
        device=study.device,
    params:
        spec=spec("pictures"),
        files=named,
    shell:
        "python -m sgm.run pictures --spec {params.spec:q} --device {resources.device}"
        " --input {params.files:q} --output pictures={output.pictures:q} > {log:q} 2>&1"
