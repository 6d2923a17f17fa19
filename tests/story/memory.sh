# A corpus need not fit into one rank: 400 MB on four ranks, each of which may hold its quarter of the
# tokens (a byte each) and 150 MB for everything else.
. "$(dirname "$0")/lib.sh"
if is_sanitized; then skip "built with a sanitizer"; fi

million=1000000
make_text $million >piece
bytes=$((400 * million))
if [ "$(df --output=avail -B1 . | tail -1)" -lt $((bytes + 200 * million)) ]; then
  skip "no room for $bytes bytes in $work"
fi
for _ in $(seq 400); do cat piece; done >text

# The kernel keeps the peak of each process; a rank leaves it behind when it ends.
cat >measured <<'SH'
#!/usr/bin/env python3
import os, resource, subprocess, sys
status = subprocess.call(sys.argv[1:])
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # KiB
with open("peak." + os.environ["OMPI_COMM_WORLD_RANK"], "w") as file:
    print(peak, file=file)
sys.exit(status)
SH
chmod +x measured
export OMP_NUM_THREADS=1
mpirun -n 4 ./measured "$unroll" train text --hidden 32 --max-steps 2 --valid-fraction 0 -o run.h5 >log 2>&1 ||
  fail "training: $(tail -3 log)"
most=$((bytes / 4 + 150 * million))
for rank in 0 1 2 3; do
  peak=$(($(cat peak.$rank) * 1024))
  echo "rank $rank: peak $((peak / million)) MB, allowed $((most / million)) MB"
  check "rank $rank holds too much" [ $peak -le $most ]
  check "rank $rank holds its tokens" [ $peak -ge $((bytes / 4)) ]
done
finish
