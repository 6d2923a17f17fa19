# Help and version need neither mpirun nor MPI, and say what the parser does.
. "$(dirname "$0")/lib.sh"

commands=$("$unroll" --help | sed -n 's/^  unroll \([a-z]*\) .*/\1/p' | sort -u)
check "the help names the commands" [ -n "$commands" ]

# Settings with which neither Open MPI nor MPICH can start; that it does not is part of the check.
without_mpi() {
  env -i OMPI_MCA_pml=none_such OMPI_MCA_btl=none_such PMI_FD=99 PMI_RANK=0 PMI_SIZE=2 PATH=/none_such "$@"
}
echo "not a run" >text
check_not "MPI starts in spite of the broken setting" without_mpi "$unroll" eval text text >out 2>&1
check "MPI is what fails then" grep -qi 'mpi' out

general() {
  check "$* ends with 0 before MPI" without_mpi "$unroll" "$@" >out 2>err
  check "$* prints to standard output" [ -s out ]
  check "$* prints nothing to standard error" [ ! -s err ]
  check "$* fits into 80 columns" awk 'length > 80 { bad = 1 } END { exit bad }' out
}
general --help
general -h
general help
general --version
check "--version says which" grep -q '^unroll [0-9]' out
for command in $commands; do
  general "$command" --help
  cp out "help.$command"
  general help "$command"
  check "help $command is $command --help" cmp out "help.$command"
done

# What help shows, the parser knows: every option takes the default that help shows. The command then
# fails for want of operands, of a text or of another option, but never for that option.
"$unroll" --man >man
for command in $commands; do
  awk '/^  (-[a-z],|   ) --/ { print ""; sub(/^  (-[a-z],|   ) /, "") } { printf "%s ", $0 }' \
    "help.$command" | sed -n 's/^\(--[a-z0-9-]*\) .*(default \([^,;)]*\).*/\1 \2/p' | tr -s ' ' |
    while read -r option value; do
      if [ "$value" = none ]; then value=; fi
      timeout 60 "$unroll" "$command" "$option" "$value" /none/such </dev/null >out 2>&1
      if grep -q -- "$option" out && ! grep -q 'needs a file name\|needs --' out; then
        echo "$command $option '$value': $(cat out)"
      fi
      echo "$option" | sed 's/-/\\\\-/g' >pattern
      grep -q -f pattern man || echo "$command $option is not in the man page"
      echo "$option" >>options
    done >complaints
  check "options of $command: $(cat complaints)" [ ! -s complaints ]
done
check "options were found in the help" [ "$(wc -l <options)" -gt 40 ]

# What a message advises can be given: an option in a string of the sources is one of ours, or of the launchers.
printf "%s\n" --man --version --bind-to --map-by --mca --mpi --cpus-per-task --ntasks-per-node >known
for command in $commands; do grep -oE -- '--[a-z][a-z0-9-]*' "help.$command"; done >>known
find "$source_dir/src" -name '*.[ch]' -exec cat {} + | grep -v '^ */\?\*' | grep -oE '"([^"\\]|\\.)*"' |
  grep -oE -- '(^|[^a-z-])--[a-z][a-z0-9-]+' | grep -oE -- '--.*' | sort -u | grep -vxF -f known >unknown
check "messages name options that do not exist: $(tr '\n' ' ' <unknown)" [ ! -s unknown ]

check_not "no command is an error" "$unroll" >out 2>err
check "no command: the usage goes to standard error" grep -q '^Usage' err
check "no command: nothing on standard output" [ ! -s out ]

mpirun -n 2 "$unroll" --version >out 2>err
check "under mpirun the version appears once" [ "$(grep -c '^unroll ' out)" = 1 ]
mpirun -n 2 "$unroll" train --help >out 2>err
check "under mpirun the help appears once" cmp out help.train

if [ -w /dev/full ]; then
  "$unroll" --help >/dev/full 2>err
  check "a full disk is told by the exit status" [ $? = 1 ]
  check "a full disk is told in one line" [ "$(wc -l <err)" = 1 ]
fi
finish
