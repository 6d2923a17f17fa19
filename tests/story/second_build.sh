# The sources as another cluster would build them: another MPI (MPICH where this build has Open MPI, and the
# reverse), the serial HDF5, another compiler. Some tests pass there, and a run has the bits of this build's. Before
# that, CMake refuses the parallel HDF5 of the wrong MPI.
. "$(dirname "$0")/lib.sh"
python=$(find_python) || skip "no python3 with h5py and NumPy"
if is_sanitized; then skip "the second build has no sanitizers"; fi

cache() { sed -n "s/^$1:[A-Z]*=//p" "$build_dir/CMakeCache.txt"; }
case $(mpirun --version) in
*"Open MPI"* | *OpenRTE*) mpi=mpich ours='Open MPI' theirs=MPICH ;;
*) mpi=openmpi ours=MPICH theirs='Open MPI' ;;
esac
case $("$unroll" --version) in
*Clang*) compiler=gcc ;;
*) compiler=clang ;;
esac
wrapper=$(command -v mpicc.$mpi) && command -v mpiexec.$mpi >launcher || skip "no mpicc.$mpi (Debian: mpich, libmpich-dev)"
command -v $compiler >/dev/null || skip "no $compiler (Debian: clang, libomp-dev)"
command -v h5cc >/dev/null || skip "no h5cc of a serial HDF5 (Debian: libhdf5-dev)"
second=$build_dir/second # stays, so that the next time little is compiled

# configure FOLDER OPTION...
configure() {
  local folder=$1
  shift
  cmake -S "$source_dir" -B "$folder" -DCMAKE_C_COMPILER=$compiler -DMPI_C_COMPILER="$wrapper" "$@" >configure.log 2>&1
}

# ------------------------------------------------------------ two MPIs at once
parallel=$(command -v "h5pcc.${ours,,}" || command -v h5pcc.openmpi)
if [ -n "$parallel" ] && "$parallel" -showconfig | grep -q 'Parallel HDF5: yes' && [ "$mpi" = mpich ]; then
  check_not "$theirs with the HDF5 of $ours is refused" configure mixed -DHDF5_C_COMPILER_EXECUTABLE="$parallel"
  tr -s ' \n' ' ' <configure.log >message # CMake breaks lines where it likes
  for part in "was built with another MPI" "$theirs" "$ours" -DHDF5_PREFER_PARALLEL=OFF -DHDF5_ROOT= -DMPI_C_COMPILER=; do
    check "the refusal says '$part': $(grep -A9 'CMake Error' configure.log)" grep -q -e "$part" message
  done
else
  echo "not checked: no parallel HDF5 of another MPI than $theirs"
fi

# ------------------------------------------------------------------ the build
configure "$second" -DHDF5_PREFER_PARALLEL=OFF || fail "configuration: $(tail -20 configure.log)"
units=(runfile params dispatch products vector_math recurrence softmax)
ranks=(comm team exchange placement runfile_load)
cmake --build "$second" --parallel "$(nproc)" --target unroll_program "${units[@]/#/test_}" "${ranks[@]/#/test_mpi_}" \
  >build.log 2>&1 || fail "build: $(grep -m 3 -A 5 'error' build.log)"
check "no warnings: $(grep -m 1 -A 5 warning: build.log)" [ "$(grep -c warning: build.log)" = 0 ]
[ -x "$second/unroll" ] || finish

ldd "$second/unroll" >libraries
case $mpi in
mpich) check_not "only MPICH is loaded: $(cat libraries)" grep -q 'libmpi\.so' libraries ;;
openmpi) check_not "only Open MPI is loaded: $(cat libraries)" grep -q libmpich libraries ;;
esac
check "compiled by $compiler" grep -qi "${compiler/gcc/gnu}" <<<"$("$second/unroll" --version)"

names=$(IFS='|' && echo "unit[.](${units[*]})([.]|\$)|mpi[.](${ranks[*]})[.]np[12]\$")
timeout 300 ctest --test-dir "$second" --output-on-failure -LE slow -R "$names" >ctest.log 2>&1 || fail "$(tail -30 ctest.log)"
check "all of them ran: $(grep 'tests passed' ctest.log)" [ "$(grep -c ' Passed ' ctest.log)" -ge $((${#units[@]} + 2 * ${#ranks[@]})) ]

# -------------------------------------------------------------------- the bits
make_text 20000 >text

# same OPTION...: two ranks of either build make the same run
same() {
  local train=(train text --epochs 1 --batch 8 --log-every 7 --valid-every 20 --overwrite "$@")
  check "train $* here" quiet 0 mpirun -n 2 "$unroll" "${train[@]}" -o first.h5
  check "train $* there" quiet 0 "$(cat launcher)" -n 2 "$second/unroll" "${train[@]}" -o second.h5
  check "$*: the same bits" same_run first.h5 second.h5
}

export OMP_NUM_THREADS=1
same --level char --hidden 97 --steps 33 --optimizer adam --lr 2e-3
same --level word --hidden 50 --layers 2 --activation relu --steps 10
same --level byte --hidden 48 --bptt randomized --steps 20
same --level char --hidden 32 --bptt full --sequences line --partition random
finish
