# The theory's side: bounds of trained networks, and exact laws without Monte Carlo.
rule bound:
    input:
        unpack(inputs("bounds")),
    output:
        bounds=plan.pattern("bounds"),
    log:
        log("bounds"),
    benchmark:
        times("bounds")
    conda:
        "../envs/sgm.yaml"
    resources:
        device=study.device,
    params:
        spec=spec("bounds"),
        files=named,
    shell:
        "python -m sgm.run bounds --spec {params.spec:q} --seeds {wildcards.seeds}"
        " --device {resources.device} --input {params.files:q}"
        " --output bounds={output.bounds:q} > {log:q} 2>&1"


# Evidence bound, and likelihood of the probability flow, of every score.
rule likelihood:
    input:
        unpack(inputs("likelihood")),
    output:
        likelihood=plan.pattern("likelihood"),
    log:
        log("likelihood"),
    benchmark:
        times("likelihood")
    conda:
        "../envs/sgm.yaml"
    resources:
        device=study.device,
    params:
        spec=spec("likelihood"),
        files=named,
    shell:
        "python -m sgm.run likelihood --spec {params.spec:q} --seeds {wildcards.seeds}"
        " --device {resources.device} --input {params.files:q}"
        " --output likelihood={output.likelihood:q} > {log:q} 2>&1"


rule exact:
    input:
        unpack(inputs("exact")),
    output:
        exact=plan.pattern("exact"),
    log:
        log("exact"),
    benchmark:
        times("exact")
    conda:
        "../envs/sgm.yaml"
    params:
        spec=spec("exact"),
    shell:
        "printf %s {params.spec:q} | python -m sgm.run exact --spec - --output exact={output.exact:q}"
        " > {log:q} 2>&1"


# Scores that are fitted to a seed's rows: all that follows is exact, given the rows.
rule learn:
    input:
        unpack(inputs("learned")),
    output:
        learned=plan.pattern("learned"),
    log:
        log("learned"),
    benchmark:
        times("learned")
    conda:
        "../envs/sgm.yaml"
    params:
        spec=spec("learned"),
        files=named,
    shell:
        "printf %s {params.spec:q} | python -m sgm.run learned --spec - --seeds {wildcards.seeds}"
        " --input {params.files:q} --output learned={output.learned:q} > {log:q} 2>&1"


# Other laws at which the backward process may start.
rule prior:
    input:
        unpack(inputs("priors")),
    output:
        priors=plan.pattern("priors"),
    log:
        log("priors"),
    benchmark:
        times("priors")
    conda:
        "../envs/sgm.yaml"
    params:
        spec=spec("priors"),
        files=named,
    shell:
        "printf %s {params.spec:q} | python -m sgm.run priors --spec - --seeds {wildcards.seeds}"
        " --input {params.files:q} --output priors={output.priors:q} > {log:q} 2>&1"


rule axes:
    input:
        unpack(inputs("axes")),
    output:
        axes=plan.pattern("axes"),
    log:
        log("axes"),
    conda:
        "../envs/sgm.yaml"
    params:
        spec=spec("axes"),
    shell:
        "printf %s {params.spec:q} | python -m sgm.run axes --spec - --output axes={output.axes:q}"
        " > {log:q} 2>&1"
