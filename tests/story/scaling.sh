# jobs/scaling: its file, its model against a cluster whose times are known, its mistakes, its picture.
. "$(dirname "$0")/lib.sh"
python=$(find_python) || skip "no python3 with h5py and NumPy"
judge=("$python" "$source_dir/tests/story/scaling.py")
scaling=("$python" "$source_dir/jobs/scaling")

# ------------------------------------------------- a cluster with known times
printf '#!/bin/sh\nexec "%s" "%s" "$@"\n' "$python" "$source_dir/tests/story/known_cluster.py" >cluster
chmod +x cluster
on_cluster=("${scaling[@]}" --program ./cluster --launch './cluster launch {ranks} {hosts} {threads}')
sizes=("dense=80,144,16,48" "sparse=4080,48,8,16" "wide=336,528,16,32")
check "a known cluster" quiet 0 "${on_cluster[@]}" --cores 4 --hosts 4 --threads 1,2 --repetitions 1 -o known.h5 "${sizes[@]}"
for what in schema sense known; do
  check "known cluster: $what" quiet 0 "${judge[@]}" $what known.h5
done
check "the fit of inexact times" quiet 0 "${judge[@]}" fit
check "the constants and configurations" quiet 0 "${judge[@]}" constants
check "the report names what was fitted" grep -q 'alpha 3e-05 s *beta 2e-09 s/byte' <(
  "${on_cluster[@]}" --cores 1 --hosts 2 --repetitions 1 -o again.h5 "${sizes[@]}" 2>/dev/null)

# ------------------------------------------------------------- this program
check "two ranks here" quiet 0 "${scaling[@]}" --program "$unroll" --launch 'mpirun -n {ranks}' \
  --cores 2 --seconds 0.02 -o here.h5 word=600,24,4,4
for what in schema sense; do
  check "two ranks here: $what" quiet 0 "${judge[@]}" $what here.h5
done
check "one rank alone: no exchange" quiet 0 "${scaling[@]}" --program "$unroll" --launch env --cores 1 --seconds 0.02 \
  -o one.h5 char=28,16,8,16
check "one rank alone: schema" quiet 0 "${judge[@]}" schema one.h5

# -------------------------------------------------------------------- mistakes
# refused WORDS STATUS COMMAND...: with that status, one line of these words last, and no file
refused() {
  local words=$1 status=$2
  shift 2
  check "$words" quiet "$status" "$@" -o never.h5
  check "says: $words" grep -q -e "$words" <(tail -1 err)
  check "no file: $words" [ ! -e never.h5 ]
}
refused 'legal are d2l, char128' 2 "${scaling[@]}" char
refused 'legal are {ranks}, {threads}, {hosts} and {ranks_per_host}' 2 "${scaling[@]}" --launch 'mpirun -n {rank}' d2l
refused '3 threads a rank on 2 cores' 2 "${scaling[@]}" --cores 2 --threads 1,3 d2l
refused 'nowhere: No such file' 1 "${scaling[@]}" --program ./nowhere d2l
refused 'asked for 2 ranks shared evenly by 1 hosts, the launcher started 1 on 1' 1 "${scaling[@]}" --program ./cluster --launch env --cores 2 d2l
refused 'hand on OMP_NUM_THREADS' 1 "${scaling[@]}" --program "$unroll" --launch 'env OMP_NUM_THREADS=1' --cores 2 --threads 2 \
  --seconds 0.02 char=28,16,8,16
check "a file is never overwritten" quiet 2 "${on_cluster[@]}" --cores 1 -o known.h5 "${sizes[@]}"
check "a folder that is not there" quiet 2 "${on_cluster[@]}" --cores 1 -o nowhere/new.h5 "${sizes[@]}"
check "says: no such folder" grep -q 'nowhere/new.h5.part: No such file' <(tail -1 err)
check "and runs nothing" [ "$(grep -c 'turn 1' err)" = 0 ]

# --------------------------------------------------------------------- picture
if "$python" -c 'import matplotlib' 2>/dev/null; then
  for file in known here one; do
    check "a picture of $file" quiet 0 "$python" "$source_dir/jobs/plot" $file.h5
    check "$file.png is a picture" [ "$(head -c 4 $file.png | tail -c 3)" = PNG ]
  done
else
  echo "not checked: no matplotlib"
fi
finish
