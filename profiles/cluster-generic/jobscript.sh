#!/bin/sh
# properties = {properties}
# Schedulers soon forget how a job ended: it leaves word for status.sh, unless it is killed.
id=${{PBS_JOBID:-${{JOB_ID:-$SLURM_JOB_ID}}}} # PBS, SGE, Slurm's own qsub
trap 'echo $? > ".snakemake/log/${{id%%.*}}.exit"' EXIT
{exec_job}
