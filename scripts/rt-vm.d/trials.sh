# Read by scripts/rt-vm: which of the integration tests run there, and what is said of the rest.
# shellcheck shell=bash
# shellcheck disable=SC2154 # from scripts/rt-vm and root.sh: work, repo, parts, test_binary, all, threads

# How much longer than on a machine of its own a test may wait for what should happen at once.
patience=30

# gate MARK: the tests in the lines of the gate's list that begin with this mark, or with none.
gate() {
    local line
    while read -r line; do
        grep -E "^${line#"$1"}(::|$)" "$work/trials" || die "$parts/gate: there are no tests '$line'"
    done < <(if [ -n "$1" ]; then grep "^$1" "$parts/gate"; else grep '^[a-z]' "$parts/gate"; fi)
}

# choose_trials [PART...]: the tests to run into $work/chosen, the others into $work/others.
choose_trials() {
    local line reason
    "$test_binary" --list | sed -n 's/: test$//p' | sort >"$work/trials"
    if [ -n "$all" ]; then
        cp "$work/trials" "$work/wanted"
    elif [ $# -gt 0 ]; then
        for line in "$@"; do
            grep -F -e "$line" "$work/trials" || die "no test has '$line' in its name: $test_binary --list"
        done >"$work/wanted"
    else
        gate '' >"$work/in"
        gate '!' >"$work/not"
        sort -u "$work/in" | comm -23 - <(sort -u "$work/not") >"$work/wanted"
    fi
    while read -r line reason; do
        grep -qxF -e "$line" "$work/trials" || die "$parts/left-out: there is no test '$line'"
        [ -n "$reason" ] || die "$parts/left-out: '$line' has no reason"
        echo "$line"
    done < <(grep -v '^#' "$parts/left-out") | sort >"$work/out"
    sort -u "$work/wanted" | comm -23 - "$work/out" >"$work/chosen"
    [ -s "$work/chosen" ] || die "every test that was asked for is in $parts/left-out"
    comm -23 "$work/trials" "$work/chosen" >"$work/others"
}

# What the machine does. A test that lacks something there fails (CI=1) and does not skip itself unseen.
test_commands() {
    local skip=()
    while read -r line; do skip+=(--skip "$line"); done <"$work/others"
    cat <<COMMANDS
uname -rv
export CI=1 RTD_TEST_PATIENCE=$patience RTD_TEST_EXAMPLES=$(printf '%q' "$built/examples")
code=0
cd $(printf '%q' "$repo/rtd")
$(printf '%q ' "$test_binary" --color never --test-threads "$threads" --exact "${skip[@]}") || code=1
rtlat compare -q --turns 1 -l 20 --busy 20 || code=1
exit "\$code"
COMMANDS
}

# What did not run, by name where it was left out for good.
closing_line() {
    local line reason
    while read -r line reason; do echo "rt-vm: left out: $line: $reason"; done < <(grep -v '^#' "$parts/left-out")
    echo "rt-vm: $(wc -l <"$work/chosen") tests and rtlat compare on PREEMPT_RT, $(wc -l <"$work/others") not run" \
        "($(wc -l <"$work/out") of them left out everywhere there, the rest run with --all)"
}
