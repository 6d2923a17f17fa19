# The first command of the README, in a fresh copy of the sources, as a newcomer would type it.
. "$(dirname "$0")/lib.sh"
unset OMPI_MCA_rmaps_base_oversubscribe OMPI_MCA_hwloc_base_binding_policy OMP_NUM_THREADS

mkdir clone
(cd "$source_dir" && tar c CMakeLists.txt LICENSE include jobs src tests) | tar x -C clone
cd clone || exit 1
bash jobs/quickstart.sh >../log 2>&1 || fail "quickstart.sh: $(tail -3 ../log)"
loss=$(sed -n 's/^tokens .* loss \([0-9.]*\) .*/\1/p' ../log)
check "text of the same kind is learnt: $loss nats" awk "BEGIN { exit !($loss > 0.5 && $loss < 2.3) }"
check "a run file is left" [ -s build/quickstart.h5 ]
check "the best one too" [ -s build/quickstart.best.h5 ]
check "the curves too" [ -s build/quickstart.jsonl ]
finish
