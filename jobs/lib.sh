# What the jobs share: install what is missing, configure, build. Sourced by bash.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# A container's root may use mpirun; a machine with one core may still run two ranks.
if [ "$(id -u)" = 0 ]; then
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
export OMPI_MCA_rmaps_base_oversubscribe=1

# The first python3 that has h5py and NumPy: another one may stand before the system's in PATH.
find_python() {
  local python
  for python in python3 /usr/bin/python3; do
    if "$python" -c 'import h5py, numpy' 2>/dev/null; then
      command -v "$python"
      return
    fi
  done
  return 1
}

has_c_compiler() { command -v cc && command -v make; }
has_hdf5() { command -v h5cc || command -v h5pcc || pkg-config --exists hdf5; }
has_clang() { echo | clang -fopenmp -include omp.h -fsyntax-only -xc -; }
has_modules() { [ -n "${MODULESHOME:-}" ] || [ -d /usr/share/modules ] || [ -d /usr/share/lmod ]; }
has_mpi() { command -v mpicc && command -v mpirun; }
has_namespaces() { PATH=$PATH:/usr/sbin:/sbin command -v tc; }
has_protobuf_c() { command -v protoc-c && pkg-config --exists libprotobuf-c; }
has_octave() { octave-cli --eval 'pkg load netcdf'; }
has_rhdf5() { Rscript -e 'library(rhdf5)'; }
has_torch() { python3 -c 'import h5py, torch' || /usr/bin/python3 -c 'import h5py, torch'; }
has_xarray() {
  python3 -c 'import xarray, netCDF4, pandas, matplotlib' || /usr/bin/python3 -c 'import xarray, netCDF4, pandas, matplotlib'
}
has_slurm() { PATH=$PATH:/usr/sbin:/sbin command -v slurmctld; }

# What is needed: name, how to find out that it is there, Debian's packages.
needs_of_build="
a C compiler and make|has_c_compiler|build-essential
CMake 3.20 or later|command -v cmake|cmake
pkg-config|command -v pkg-config|pkg-config
Open MPI or another MPI 3|has_mpi|openmpi-bin libopenmpi-dev
HDF5 1.10 or later, serial or parallel|has_hdf5|libhdf5-openmpi-dev
jansson|pkg-config --exists jansson|libjansson-dev
LAPACKE|pkg-config --exists lapacke|liblapacke-dev
OpenSSL|pkg-config --exists libcrypto|libssl-dev"
# Without it unroll export has no --onnx.
needs_of_onnx="
protobuf-c and its compiler|has_protobuf_c|libprotobuf-c-dev protobuf-c-compiler"
needs_of_tests="
CUnit|pkg-config --exists cunit|libcunit1-dev
Python 3 with h5py and NumPy|find_python|python3-h5py python3-numpy
the tools of HDF5|command -v h5dump|hdf5-tools"
# Without these story.second_build, story.launch, the tests of the labels slurm and hosts, and a part of story.install are skipped.
# MPICH beside Open MPI leaves mpicc and mpirun what they are (Debian's alternatives: Open MPI 50, MPICH 40).
needs_of_some_tests="
MPICH|command -v mpicc.mpich|mpich libmpich-dev
clang with OpenMP|has_clang|clang libomp-dev
Slurm|has_slurm|slurm-wlm
network namespaces|has_namespaces|iproute2
a serial HDF5|command -v h5cc|libhdf5-dev
Environment Modules or Lmod|has_modules|environment-modules"

# What people open run files with; without these oracle.torch and a part of story.tools and story.analysis are skipped.
needs_of_analysis="
PyTorch with h5py|has_torch|python3-torch python3-h5py
xarray with pandas and Matplotlib|has_xarray|python3-xarray python3-netcdf4 python3-pandas python3-matplotlib
Octave with octave-netcdf|has_octave|octave octave-netcdf
R with rhdf5|has_rhdf5|r-base-core r-bioc-rhdf5
ncdump|command -v ncdump|netcdf-bin"

# list_missing NEEDS: print the rows of what is not there
list_missing() {
  local name probe packages
  while IFS='|' read -r name probe packages; do
    if [ -n "$name" ] && ! $probe >/dev/null 2>&1; then
      echo "$name|$packages"
    fi
  done <<<"$1"
}

# install_missing NEEDS: by apt-get where that is possible, else say what is missing and stop
install_missing() {
  local missing packages run=
  missing=$(list_missing "$1")
  if [ -z "$missing" ]; then return; fi

  packages=$(cut -d '|' -f 2 <<<"$missing" | tr '\n' ' ')
  if [ "$(id -u)" != 0 ]; then run=sudo; fi
  if command -v apt-get >/dev/null && { [ -z "$run" ] || command -v sudo >/dev/null; }; then
    echo "installing: $packages"
    # shellcheck disable=SC2086 # words are meant
    if $run apt-get -q -o DPkg::Lock::Timeout=300 update &&
      $run env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 \
        install --no-install-recommends $packages; then
      missing=$(list_missing "$1")
      if [ -z "$missing" ]; then return; fi
    fi
  fi
  echo "missing; load a module or install it (Debian's packages are in brackets):" >&2
  sed 's/^\(.*\)|\(.*\)$/  \1 (\2)/' <<<"$missing" >&2
  exit 1
}

# build FOLDER TARGET [cmake options]
build() {
  local folder=$1 target=$2
  shift 2
  cmake -S "$root" -B "$folder" "$@" &&
    cmake --build "$folder" --target "$target" --parallel "$(nproc)"
}
