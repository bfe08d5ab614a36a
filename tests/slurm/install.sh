#!/usr/bin/env bash
# Slurm from the distribution's packages, for `make test-slurm` alone.
set -euo pipefail
if [ "$(id -u)" != 0 ]; then
  echo "test-slurm: must be root, to start Slurm's daemons" >&2
  exit 1
fi
found() { command -v "$1" > /dev/null; }
if found slurmctld && found slurmd && found qsub && found munged; then exit; fi
if ! found apt-get; then
  echo "test-slurm: needs apt-get to install Slurm" >&2
  exit 1
fi
# slurm-wlm-torque: PBS commands, for the profile cluster-generic
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends slurmctld slurmd slurm-client slurm-wlm-torque munge > /dev/null
