# unroll compare: the ranking, what differs, the hashes, as a page and as JSON.
. "$(dirname "$0")/lib.sh"
python=$(find_python) || skip "no python3 with h5py and NumPy"

make_text 9000 >text
make_text 12000 >other
export OMP_NUM_THREADS=1
train() { quiet 0 "$unroll" train "$1" -o "$2.h5" --hidden 8 --batch 6 --steps 16 --lr 1e-2 "${@:3}"; }
check "one epoch" train text one --epochs 1
check "the same" train text again --epochs 1 --overwrite
check "three epochs" train text three --epochs 3 --level char
check "bytes" train text bytes --epochs 1 --level byte
check "stopped" train text part --epochs 3 --max-steps 5
check "another text" train other other --epochs 1

check "two runs" quiet 0 "$unroll" compare one.h5 three.h5
check "the better one is first" grep -q '^  1 three.h5 ' out
check "epochs differ" grep -qx '  epochs  *3  *1' out
check "nothing else does" [ "$(sed -n '/^options/,/^$/p' out | wc -l)" = 4 ] # heading, numbers, epochs, end
check "of one text" grep -qx 'texts: the same' out
check "the same weights" quiet 0 "$unroll" compare three.h5 one.h5 again.h5
check "are said to be so" grep -q '^2 and 3 have the same weights' out
check "equal runs as they were given" grep -q '^  2 one.h5 ' out
check "no difference" quiet 0 "$unroll" compare one.h5 again.h5
check "is said" grep -qx 'no option differs' out
check "another text" quiet 0 "$unroll" compare one.h5 other.h5
check "is said" grep -q '^texts: not the same' out
check "without a validation" quiet 0 "$unroll" compare part.h5 one.h5
check "last" grep -q '^  2 part.h5 .* 5\.\.\. ' out
refused() { quiet 2 "$unroll" compare "$@" && [ "$(wc -l <err)" = 1 ] && grep -q "$1" err; }
check "a file that is not there" refused none.h5 one.h5

check "JSON" quiet 0 "$unroll" compare --json part.h5 bytes.h5 one.h5 three.h5
check "is what the files hold" "$python" - out <<'PY'
import hashlib, json, sys
import h5py
import numpy as np

runs = json.load(open(sys.argv[1]))["runs"]
assert {run["file"] for run in runs} == {"part.h5", "bytes.h5", "one.h5", "three.h5"}, runs
assert [run["rank"] for run in runs] == [1, 2, 3, 4] and runs[3]["file"] == "part.h5", runs
bits = [run["bits_per_character"] for run in runs]
assert bits[:3] == sorted(bits[:3]) and bits[3] is None, bits
for run in runs:
    with h5py.File(run["file"]) as file:
        paths = []
        file["weights"].visititems(lambda name, node: paths.append(name) if isinstance(node, h5py.Dataset) and "/" in name else None)
        hash = hashlib.sha256()
        for path in sorted(paths):
            hash.update(file["weights"][path][...].tobytes())
        assert run["weights_sha256"] == hash.hexdigest(), run["file"]
        assert run["parameters"] == sum(file["weights"][path].size for path in paths)
        state, valid = file["state"].attrs, file["metrics/valid"]
        assert (run["step"], run["finished"]) == (state["step"], bool(state["finished"]))
        assert abs(run["tokens_per_second"] / (state["tokens"] / state["seconds"]) - 1) < 1e-12
        if run["best_loss"] is not None:
            i = int(valid["loss"][:].argmin())
            assert run["best_loss"] == valid["loss"][i] and run["best_step"] == valid["step"][i]
            assert run["bits_per_character"] == valid["bits_per_character"][i]
        assert set(run["options"]) == {"epochs", "level", "max-steps"}, run["options"]
        assert run["options"]["epochs"] == file["config"].attrs["epochs"]
        assert run["options"]["level"] == file["config"].attrs["level"].decode()
PY
finish
