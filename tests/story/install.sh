# The installed library serves another program: found by CMake, found by pkg-config, and after the
# installed tree was moved.
. "$(dirname "$0")/lib.sh"

cmake --install "$build_dir" --prefix "$work/first" >install.log || fail "installation: $(cat install.log)"
mv first prefix # neither CMake's package nor unroll.pc may hold on to the old place
prefix=$work/prefix
cd "$prefix" || exit 1
check "the program" "$prefix/bin/unroll" --version >/dev/null
check "a header" [ -f include/unroll/model.h ]
check "no header but the public ones" diff <(ls include/unroll) <(ls "$source_dir/include/unroll")
check "the man page" [ -s share/man/man1/unroll.1 ]
check "the script that draws" cmp share/unroll/plot "$source_dir/jobs/plot"
check "the programs of jobs/analysis" diff -r -x __pycache__ share/unroll/analysis "$source_dir/jobs/analysis"
if command -v man >/dev/null; then
  man -l --warnings -Tutf8 share/man/man1/unroll.1 >"$work/page" 2>"$work/complaints"
  check "man reads the page: $(cat "$work/complaints")" [ ! -s "$work/complaints" ]
  check "the page tells of --hidden" grep -q -- --hidden "$work/page"
fi
check "no library is missing: $(ldd bin/unroll)" bash -c '! ldd bin/unroll | grep "not found"'

# The module file tells the prefix from its own place, behind symbolic links;
# with it loaded, PATH and MANPATH begin there.
mkdir -p "$work/site/unroll"
ln -s "$prefix/share/unroll/modulefiles/unroll/"* "$work/site/unroll/"
systems=0
for init in /usr/share/modules/init/bash /usr/share/lmod/lmod/init/bash "${MODULESHOME:-/none}/init/bash"; do
  [ -f "$init" ] || continue
  systems=$((systems + 1))
  for folder in "$prefix/share/unroll/modulefiles" "$work/site"; do
    # shellcheck disable=SC2016 # of the other shell
    MANPATH=/none bash -c '. "$1"; module use "$2"; module load unroll; command -v unroll; echo "${MANPATH%%:*}"
      module unload unroll; case $PATH:$MANPATH in *"$3/"*) echo "left: $PATH:$MANPATH" ;; esac' \
      - "$init" "$folder" "$prefix" >"$work/log" 2>&1
    printf '%s\n' "$prefix/bin/unroll" "$prefix/share/man" >"$work/wanted"
    check "load and unload, $init, $folder: $(cat "$work/log")" cmp -s "$work/wanted" "$work/log"
  done
done
[ $systems -gt 0 ] || echo "not checked: neither Environment Modules nor Lmod (Debian: environment-modules)"
config=$(dirname "$(find . -name unroll-config.cmake)")
pc=$(dirname "$(find "$prefix" -name unroll.pc)")
cd "$work" || exit 1

make_text 5000 >text
"$unroll" train text "${tiny[@]}" -o run.h5 >log 2>&1 || fail "training: $(cat log)"
"$unroll" sample run.h5 --length 40 >expected

mkdir consumer
# The programs and their CMakeLists.txt are those of the guide.
# block LANGUAGE N: the block of that number
block() { awk -v begin="\`\`\`$1 tested" -v n="$2" '/^```/ { inside = $0 == begin && ++k == n; next } inside' "$source_dir/jobs/guides/c-api.md"; }
block c 1 >consumer/consumer.c
block cmake 1 >consumer/CMakeLists.txt

samples() { # WHAT PROGRAM: it draws what `unroll sample` draws
  LD_LIBRARY_PATH=$(dirname "$(find "$prefix" -name 'libunroll.*' | head -1)") timeout 60 "$2" run.h5 >drawn 2>&1
  check "$1: $(diff drawn expected)" cmp -s drawn expected
}

{ cmake -S consumer -B by_cmake -Dunroll_DIR="$prefix/$config" && cmake --build by_cmake; } >log 2>&1
check "built by CMake: $(tail -5 log)" [ -x by_cmake/consumer ]
samples "built by CMake" by_cmake/consumer

# The other program trains, scores and exports as the program does.
mkdir trainer
block c 2 >trainer/trainer.c
block cmake 1 | sed 's/consumer/trainer/g' >trainer/CMakeLists.txt
make_text 3000 >test
{ cmake -S trainer -B by_trainer -Dunroll_DIR="$prefix/$config" -DCMAKE_C_FLAGS=-Wall && cmake --build by_trainer; } >log 2>&1
check "the trainer: $(tail -5 log)" [ -x by_trainer/trainer ]
check "without warnings" bash -c '! grep -i warning log'
library_path=$(dirname "$(find "$prefix" -name 'libunroll.*' | head -1)")
check "it runs" quiet 0 env LD_LIBRARY_PATH="$library_path" mpirun -n 2 by_trainer/trainer text test
cp out said
check "the program trains" quiet 0 "$unroll" train text --hidden 16 --epochs 2 -o own.h5
check "with the same losses" diff <(sed -n 's/^valid step \([0-9]*\) .* loss \([0-9.]*\) .*/\1 \2/p' out) <(head -n -1 said)
hash_of() { "$unroll" info "$1" | sed -n 's/^weights: //p'; }
check "to the same weights" [ "$(hash_of own.h5)" = "$(hash_of trained.h5)" ]
check "the program scores" quiet 0 "$unroll" eval own.h5 test --json
check "the same: $(tail -1 said)" grep -q "\"loss\": $(sed -n 's/^.* tokens, loss \([0-9.]*\)[0-9]$/\1/p' said)" out
check "and exports" quiet 0 "$unroll" export own.h5 --safetensors own.safetensors
check "the same weights" cmp <(tail -c 2000 own.safetensors) <(tail -c 2000 trained.safetensors) # options differ in --out
rm trained.*
check "a text that is missing" quiet 1 env LD_LIBRARY_PATH="$library_path" by_trainer/trainer nosuch test
check "is named" grep -q nosuch err

# A project of C++ alone.
if command -v c++ >/dev/null; then
  mkdir cxx
  printf '%s\n' 'cmake_minimum_required(VERSION 3.20)' 'project(consumer LANGUAGES CXX)' 'find_package(unroll 0.1 REQUIRED)' \
    'add_executable(consumer main.cpp)' 'target_link_libraries(consumer PRIVATE unroll::unroll)' >cxx/CMakeLists.txt
  printf '%s\n' '#include <unroll/model.h>' 'int main() { unroll_model *model = nullptr; unroll_model_free(&model); }' >cxx/main.cpp
  { cmake -S cxx -B by_cxx -Dunroll_DIR="$prefix/$config" && cmake --build by_cxx && by_cxx/consumer && echo done; } >log 2>&1
  check "a project of C++ alone: $(tail -5 log)" grep -qx done log
fi

if command -v pkg-config >/dev/null; then
  # shellcheck disable=SC2046 # words are meant
  PKG_CONFIG_PATH=$pc${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH} &&
    export PKG_CONFIG_PATH &&
    ${CC:-cc} -o by_pkg_config consumer/consumer.c $(pkg-config --cflags --libs unroll) >log 2>&1
  check "built by pkg-config: $(cat log)" [ -x by_pkg_config ]
  samples "built by pkg-config" ./by_pkg_config
fi

shared=$(find "$prefix" -name 'libunroll.so')
if [ -n "$shared" ]; then
  nm -D --defined-only "$shared" | awk '{ print $3 }' | grep -v '^unroll_' >symbols
  check "the shared library shows only unroll_*: $(head -3 symbols)" [ ! -s symbols ]
fi
finish
