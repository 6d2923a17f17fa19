#!/bin/bash
# scaling.sbatch: steps of one rank and of two hosts in an allocation, and the file that jobs/scaling writes of them.
#
#   scaling.sh SOURCE UNROLL
. "$(dirname "$0")/lib.sh" "$@"
need_slurm
start_slurm
[ "$python" = python3 ] || export PATH=$work/bin:${python%/*}:$PATH # jobs/scaling takes the first in PATH

edit two scaling.sbatch -e "s:^sources=[^ ]*:sources=$source_dir:" -e 's/^configurations=([^)]*)/configurations=(tiny=28,16,8,16)/' \
  -e 's/^options=.*/options=(--seconds 0.02 --repetitions 1)/'
submit two scaling.sbatch --nodes=2 --ntasks-per-node=1
check "it ends" ends two COMPLETED 0:0
file=two/scaling-${job[two]}.h5
for what in schema sense; do
  check "its file: $what" quiet 0 "$python" "$source_dir/tests/story/scaling.py" $what "$file"
done
check "its file: ranks on one host and on two" "$python" - "$file" <<'PYTHON'
import sys
import h5py
with h5py.File(sys.argv[1], "r") as file:
    m = file["measured"]
    layouts = set(zip(m["ranks"][:], m["hosts"][:]))
    hosts = file["provenance"].attrs["hosts"].decode().split(",")
print(layouts, hosts)
sys.exit(0 if layouts == {(1, 1), (2, 2)} and len(set(hosts)) == 2 else 1)
PYTHON
finish
