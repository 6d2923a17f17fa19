#!/bin/bash
# What --lowercase makes of capital letters, beside what Python makes of them; and that the C library is not asked.
#
#   lowercase.sh SOURCE UNROLL
. "$(dirname "$0")/../story/lib.sh" "$@"
python=$(find_python) || skip "no python3 with h5py and NumPy"
oracle=$source_dir/tests/oracle/lowercase.py

check "write the text" "$python" "$oracle" write text
check "train" quiet 0 env LC_ALL=C "$unroll" train text --level word --lowercase "${tiny[@]}" --max-steps 1 \
  --valid-fraction 0 -o run.h5
check "compare" "$python" "$oracle" compare run.h5
check "train without --lowercase" quiet 0 "$unroll" train text --level word "${tiny[@]}" --max-steps 1 --valid-fraction 0 -o other.h5
check_not "the comparison can fail" "$python" "$oracle" compare other.h5 >log

# Locales differ between machines, and some have none.
nm -u "$build_dir/libunroll.a" >undefined
check "the library calls others" grep -qw pread undefined
check_not "but none that depends on the locale" grep -wE '(newlocale|setlocale|uselocale|tow(lower|upper|ctrans)|isw[a-z]+)(_l)?' undefined
finish
