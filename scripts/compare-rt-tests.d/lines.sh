# shellcheck shell=bash
# Sourced by compare-rt-tests: runs the command lines of `lines` through rt-tests and rtlat side by side, and compares what
# a parser of their output sees (view.awk). Uses $dir, $rtlat and die of its caller.

: "${dir:?a directory for files}" "${rtlat:?the program}"
lines_here=$(dirname "${BASH_SOURCE[0]}")

# The rtlat command that a tool of rt-tests corresponds to. rt-tests exit with 0 though they lose messages.
counterpart() {
    case $1 in
        cyclictest) echo timer ;;
        pmqtest) echo mq --allow-loss ;;
        sigwaittest) echo signal --allow-loss ;;
        ptsematest) echo mutex --allow-loss ;;
        svsematest) echo sem --allow-loss ;;
        signaltest) echo signal --allow-loss --round-trip -i 0 ;;
        *) die "there is no counterpart of $1" ;;
    esac
}

# run_line NAME INT COMMAND...: runs it; its output, exit status and files under $dir/NAME.*
run_line() {
    local name=$1 int=$2 status=0
    shift 2
    if [ "$int" ]; then
        timeout --preserve-status -s INT 0.5 "$@" >"$dir/$name.out" 2>"$dir/$name.err" || status=$?
    else
        timeout 30 "$@" >"$dir/$name.out" 2>"$dir/$name.err" || status=$?
    fi
    echo "exit $status" >"$dir/$name.exit"
}

# view NAME LOOPS: what a parser sees of it. Of rtlat's comments only those that rt-tests have too: others are skipped.
view() {
    local name=$1 kept=
    [ "$name" = theirs ] || kept=$dir/theirs.comments
    cat "$dir/$name.exit"
    awk -v loops="$2" -v kept="$kept" -f "$lines_here/view.awk" "$dir/$name.out"
    if [ -s "$dir/$name.hist" ]; then
        awk -v loops="$2" -v kept="$kept" -f "$lines_here/view.awk" "$dir/$name.hist" | sed 's/^/file /'
    fi
    if [ -s "$dir/$name.json" ]; then
        # rt-tests write `cmdline:`, and `nan` for the mean of no samples.
        sed 's/: -\?nan/: null/; s/^\( *"[a-z_]*\):":/\1":/' "$dir/$name.json" |
            jq -r 'paths | map(if type == "number" then tostring else . end)
                | select(any(. == "histogram") | not) | "json " + join("/")' >"$dir/$name.keys" ||
            die "$name: no JSON: $(cat "$dir/$name.json")"
        if [ "$name" = theirs ]; then cat "$dir/theirs.keys"; else grep -Fxf "$dir/theirs.keys" "$dir/ours.keys"; fi
    fi
}

# One line of the table. False: it differs where it should not.
compare_line() {
    local command=$1 differs=$2 int="" loops
    if [[ $command == 'INT '* ]]; then int=yes command=${command#INT }; fi
    loops=$(sed -n 's/.* \(-l *\|--loops=\)\([0-9]*\).*/\2/p' <<<" $command")
    local words theirs=() ours=() word
    read -ra words <<<"$command"
    for word in "${words[@]}"; do
        word=${word//@CPUS/$lines_cpus}
        word=${word//@CPU/$lines_cpu}
        word=${word//@N/$lines_count}
        theirs+=("${word/@JSON/$dir/theirs.json}")
        theirs[-1]=${theirs[-1]/@HIST/$dir/theirs.hist}
        ours+=("${word/@JSON/$dir/ours.json}")
        ours[-1]=${ours[-1]/@HIST/$dir/ours.hist}
    done
    local counterpart
    read -ra counterpart <<<"$(counterpart "${words[0]}")"
    rm -f "$dir"/{theirs,ours}.*
    run_line theirs "$int" "${theirs[@]}" &
    run_line ours "$int" "$rtlat" "${counterpart[@]}" "${ours[@]:1}"
    wait
    case $differs in
        REFUSED)
            grep -qx 'exit 2' "$dir/ours.exit" && [ ! -s "$dir/ours.out" ] && return
            echo "not refused: $(cat "$dir/ours.exit" "$dir/ours.err" "$dir/ours.out")"
            return 1
            ;;
        UNKNOWN)
            grep -qx 'exit 0' "$dir/ours.exit" && [ -s "$dir/ours.out" ] && grep -q Usage "$dir"/theirs.{out,err} && return
            echo "rtlat: $(cat "$dir/ours.exit" "$dir/ours.err"); rt-tests: $(cat "$dir"/theirs.{out,err})"
            return 1
            ;;
    esac
    # Standard error is for people: notes, each a line.
    if grep -v '^rtlat: \(note\|warning\): ' "$dir/ours.err"; then
        echo "the above is on standard error"
        return 1
    fi
    awk -v loops="${loops:-0}" -f "$lines_here/view.awk" "$dir/theirs.out" >"$dir/theirs.view"
    sed -n 's/^comment //p' "$dir/theirs.view" >"$dir/theirs.comments"
    if [ -s "$dir/theirs.hist" ]; then
        awk -f "$lines_here/view.awk" "$dir/theirs.hist" | sed -n 's/^comment //p' >>"$dir/theirs.comments"
    fi
    view theirs "${loops:-0}" >"$dir/theirs.view"
    view ours "${loops:-0}" >"$dir/ours.view"
    local key may_differ
    for key in $differs; do
        may_differ=${key%%[!?]*} key=${key#\?}
        if [ -z "$may_differ" ] && diff -q <(grep "^$key " "$dir/theirs.view") <(grep "^$key " "$dir/ours.view") >"$dir/null"; then
            echo "$key is the same, though the table says that it differs"
            return 1
        fi
        sed -i "/^$key /d" "$dir/theirs.view" "$dir/ours.view"
    done
    diff "$dir/theirs.view" "$dir/ours.view"
}

# All lines of the table; its exit status is that of --lines.
compare_lines() {
    local tool command from differs count=0 failed=0 said
    for tool in cyclictest pmqtest sigwaittest ptsematest svsematest signaltest; do
        command -v "$tool" >"$dir/null" || die "$tool is not installed: apt install rt-tests"
    done
    lines_cpus=$(taskset -cp $$ | sed 's/.*: //')
    lines_cpu=${lines_cpus%%[,-]*}
    lines_count=$(nproc)
    while IFS='|' read -r command from differs; do
        if [[ -z ${command// /} || $command == '#'* ]]; then continue; fi
        count=$((count + 1))
        read -r from <<<"$from"
        read -r differs <<<"$differs"
        if said=$(compare_line "${command% }" "$differs"); then
            echo "same: $command($from)"
        else
            failed=$((failed + 1))
            echo "differs: $command($from)"
            sed 's/^</  rt-tests /; s/^>/  rtlat    /' <<<"$said"
        fi
    done <"$lines_here/lines"
    echo "$count command lines, $failed differ"
    [ "$failed" = 0 ]
}
