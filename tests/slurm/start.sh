#!/usr/bin/env bash
# start.sh STATE: a one-node Slurm whose files lie in the folder STATE. As root; no systemd.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
state=${1:?start.sh STATE}
conf=/etc/slurm/slurm.conf # where jobs look for it: SLURM_CONF doesn't reach the nested srun
if [ -e "$conf" ]; then
  echo "start.sh: $conf exists: there is a Slurm here already" >&2
  exit 1
fi

mkdir -p "$state"/{ctld,slurmd} "$(dirname "$conf")"
sed -e "s#@HOST@#$(hostname -s)#; s#@STATE@#$state#; s#@CPUS@#$(nproc)#" "$here/slurm.conf" > "$state/slurm.conf"
ln -sfn "$state/slurm.conf" "$conf"

if ! munge -n < /dev/null > /dev/null 2>&1; then
  install -d -o munge -g munge -m 0755 /run/munge
  setpriv --reuid=munge --regid=munge --clear-groups munged
  cp /run/munge/munged.pid "$state/munged.pid"
fi
slurmctld
slurmd

for _ in $(seq 150); do
  case $(sinfo -h -p site -o %T 2> /dev/null) in idle) exit ;; esac
  sleep 0.2
done
echo "start.sh: the node did not become idle" >&2
tail -n 20 "$state"/slurm*.log >&2
exit 1
