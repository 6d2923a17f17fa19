import os

from spack.package import *

try:  # since Spack 1.0 the build systems belong to the repository of packages
    from spack_repo.builtin.build_systems.cmake import CMakePackage
except ImportError:
    pass


class Unroll(CMakePackage):
    """MPI + OpenMP trainer of recurrent-neural-network language models: text in, one HDF5 file out."""

    # The clone that this file is part of: what is committed there on branch main.
    git = "file://" + os.path.realpath(os.path.join(os.path.dirname(__file__), *[os.pardir] * 4))

    license("MIT")

    version("main", branch="main")

    variant("shared", default=False, description="Build libunroll as a shared library")
    variant("tests", default=False, description="Build the test suite")

    variant("onnx", default=False, description="unroll export --onnx, with protobuf-c")

    depends_on("c", type="build")
    depends_on("cmake@3.20:", type="build")
    depends_on("pkgconfig", type="build")
    depends_on("mpi@3:")
    depends_on("hdf5@1.10: +hl")  # ~mpi will do as well: rank 0 alone writes, with the serial driver
    depends_on("openblas")  # LAPACK with its C interface, LAPACKE
    depends_on("jansson")
    depends_on("openssl")
    depends_on("protobuf-c", when="+onnx")
    depends_on("cunit", when="+tests")

    def cmake_args(self):
        return [
            self.define("MPI_C_COMPILER", self.spec["mpi"].mpicc),
            self.define("HDF5_ROOT", self.spec["hdf5"].prefix),
            self.define("HDF5_PREFER_PARALLEL", self.spec.satisfies("^hdf5+mpi")),
            self.define_from_variant("BUILD_SHARED_LIBS", "shared"),
            self.define_from_variant("UNROLL_BUILD_TESTS", "tests"),
            self.define_from_variant("UNROLL_ONNX", "onnx"),
        ]
