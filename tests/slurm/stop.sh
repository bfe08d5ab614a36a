#!/usr/bin/env bash
# stop.sh STATE: end the daemons that start.sh STATE started, and no others.
state=${1:?stop.sh STATE}
conf=/etc/slurm/slurm.conf
alive() { [ -r "/proc/$1/stat" ] && ! grep -q ') Z ' "/proc/$1/stat"; }

[ "$(readlink "$conf")" = "$state/slurm.conf" ] || exit 0
scancel --user "$(id -un)" 2> /dev/null
for name in slurmd slurmctld munged; do
  [ -f "$state/$name.pid" ] || continue
  pid=$(cat "$state/$name.pid")
  kill "$pid" 2> /dev/null
  for _ in $(seq 100); do
    alive "$pid" || break
    sleep 0.1
  done
done
rm "$conf"
