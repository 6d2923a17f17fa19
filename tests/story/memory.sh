# A corpus need not fit into one rank: 400 MB on four ranks, each of which may hold its quarter of the
# tokens (a byte each) and 150 MB for everything else. And the exact gradient of 1,000,000 characters need not hold
# a million states: 128 units of them alone would take 512 MB, and as much once more for the backward pass. And the
# ranks of a host have parameters and moments once between them, at the start of a run and of its resumption, too.
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
status = subprocess.call(sys.argv[1:], close_fds=False)  # one of them is the PMI of MPICH
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # KiB
with open("peak." + (os.environ.get("OMPI_COMM_WORLD_RANK") or os.environ["PMI_RANK"]), "w") as file:
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

head -c $((million + 1)) text >million
mpirun -n 1 ./measured "$unroll" train million --bptt full --batch 1 --hidden 128 --epochs 1 --valid-fraction 0 --log-format full -o full.h5 \
  >log 2>&1 || fail "full BPTT: $(tail -3 log)"
peak=$(($(cat peak.0) * 1024))
echo "full BPTT: peak $((peak / million)) MB, allowed 400 MB"
check "full BPTT took all tokens" grep -q '^train step 1 .* tokens 1000000 ' log
check "full BPTT holds too much" [ $peak -le $((400 * million)) ]

# Eight ranks, 20,000 words, 200 units. One copy of the parameters: two tables whose rows are padded to 208 floats.
awk 'BEGIN { for (x = 1; n < 400000; ++n) { x = (x * 16807) % 2147483647; printf "w%d%s", x % 20000, n % 10 ? " " : "\n" } }' >words
copy=$((2 * 20000 * 208 * 4))

# peaks_within WHAT REST FIRST: every rank takes at most REST bytes beside 50 MB of program and MPI, rank 0 FIRST more
peaks_within() {
  local rank peak most
  for rank in 0 1 2 3 4 5 6 7; do
    peak=$(($(cat peak.$rank) * 1024))
    most=$((50 * million + $2 + (rank == 0 ? $3 : 0)))
    echo "$1, rank $rank: peak $((peak / million)) MB, allowed $((most / million)) MB"
    check "$1: rank $rank holds too much" [ $peak -le $most ]
  done
}

# A step: weights and gradient. Rank 0 writes the file: it reads weights and moments, and makes an image of them.
mpirun -n 8 ./measured "$unroll" train words --level word --hidden 200 --batch 8 --shards 8 --steps 8 --max-steps 1 \
  --valid-fraction 0 -o words.h5 >log 2>&1 || fail "words: $(tail -3 log)"
peaks_within "first step" $((2 * copy)) $((6 * copy))

# Nothing but the start: an eighth of weights and moments. Rank 0 reads the file, an array at a time in blocks.
mpirun -n 8 ./measured "$unroll" train --resume -o words.h5 --max-steps 1 >log 2>&1 || fail "words: $(tail -3 log)"
peaks_within "resumed" $((3 * copy / 8)) $((7 * copy / 2))
finish
