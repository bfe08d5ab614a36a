#!/usr/bin/env bash
# status.sh JOB: running, success or failed. A job that left the queue without a word has failed;
# a scheduler that doesn't answer has not said that the job has left.
job=${1%%.*}
answer=$(qstat -f "$1" 2>&1) # asked first: a job that ends meanwhile has left its word. SGE: -j
case "$?:$answer" in
  153:* | 35:*) queued=no ;;                            # PBS: unknown; finished
  *"job_state = C"* | *"job_state = F"*) queued=no ;;   # PBS: remembered
  *"do not exist"*) queued=no ;;                        # SGE
  *) queued=yes ;;
esac
case $(cat ".snakemake/log/$job.exit" 2> /dev/null):$queued in
  0:*) echo success ;;
  :yes) echo running ;;
  *) echo failed ;;
esac
