# Read by scripts/rt-vm: the programs, and the machine's root file system as an initramfs.
# shellcheck shell=bash
# shellcheck disable=SC2154 # from scripts/rt-vm and packages.sh: work, repo, parts, verb, build, profile, in, systemd, ...

# programs: builds them and names them in `installed`, their directory in `built`, the test's binary in `test_binary`.
programs() {
    built=${CARGO_TARGET_DIR:-$repo/target}/$([ "$profile" = dev ] && echo debug || echo "$profile")
    [ -z "$build" ] || need cargo cargo
    installed=("$built/rtd" "$built/rtctl" "$built/rtlat")
    if [ "$verb" = run ]; then
        [ -z "$build" ] || job cargo build --quiet --locked --profile "$profile" --workspace --bins --examples ||
            die "the programs do not build"
    else
        if [ -n "$build" ]; then
            # The same command as the host's tests: in the dev profile nothing is built twice.
            job cargo test --quiet --locked --profile "$profile" --workspace --no-run --message-format=json \
                >"$work/built.json" || die "the tests do not build"
            test_binary=$(jq -r 'select(.target.name? == "integration" and .executable != null).executable' \
                "$work/built.json" | tail -n 1)
        else
            test_binary=$(find "$built/deps" -maxdepth 1 -name 'integration-*' -type f -executable \
                -printf '%T@ %p\n' 2>/dev/null | sort -n | tail -n 1 | cut -d' ' -f2-) || true
        fi
        [ -n "$test_binary" ] || die "there is no test binary in $built/deps: cargo test --no-run, or without --no-build"
        installed+=("$test_binary" "$built/deps/libstand_in_cobalt.so")
    fi
    while read -r example; do installed+=("$example"); done < <(
        find "$built/examples" -maxdepth 1 -type f -executable ! -name '*-*' 2>/dev/null)
    for program in "${installed[@]}"; do
        [ -x "$program" ] || die "$program is missing: cargo build --profile $profile, or without --no-build"
    done
}

# install_program PATH: there where it lies here (tests know their daemon by its path), with its libraries.
install_program() {
    [ ! -e "$root$1" ] || return 0
    mkdir -p "$root$(dirname "$1")"
    objcopy --strip-debug "$1" "$root$1" 2>/dev/null || cp -L "$1" "$root$1"
    while read -r library; do
        [ -e "$root$library" ] || { mkdir -p "$root$(dirname "$library")" && cp -L "$library" "$root$library"; }
    done < <(ldd "$1" 2>/dev/null | grep -o '/[^ ]*' || true)
}

# What a command finds under any of the two inits.
common_files() {
    mkdir -p "$root"/{in,out,rt-vm,tmp,var/tmp} "$root$repo"/{rtd,rtcore}
    cp "$cache/busybox" "$root/rt-vm/busybox"
    cp "$parts/report" "$root/rt-vm/report"
    cp "$work/command" "$root/rt-vm/command"
    for program in "${installed[@]}"; do install_program "$program"; done
    for tool in cyclictest pmqtest sigwaittest strace setcap prlimit chrt setpriv dash; do
        if path=$(command -v "$tool"); then install_program "$(realpath "$path")"; fi
    done
    cp -R configs README.md "$root$repo/"
    [ -z "$in" ] || cp -RL "$in/." "$root/in" || die "--in: not all of '$in' can be read"
}

busybox_files() {
    mkdir -p "$root"/{bin,etc,root}
    cp "$parts/init" "$root/init"
    for program in "${installed[@]}"; do ln -sf "$program" "$root/bin/"; done
    # Busybox's shell takes its own programs, whatever the PATH says.
    if path=$(command -v dash); then ln -s "$(realpath "$path")" "$root/bin/sh"; fi
    printf '%s:/:/bin/sh\n' 'root:x:0:0:root' 'daemon:x:1:1:daemon' 'nobody:x:65534:65534:nobody' >"$root/etc/passwd"
    printf '%s:\n' 'root:x:0' 'daemon:x:1' 'nogroup:x:65534' >"$root/etc/group"
}

# The deployment that the README describes, and what packages' scripts would have written.
systemd_files() {
    local etc=$root/etc
    cp "$parts/init-systemd" "$root/init"
    cp "$root/usr/share/base-passwd/passwd.master" "$etc/passwd"
    cp "$root/usr/share/base-passwd/group.master" "$etc/group"
    printf 'root:*:19000::::::\n' >"$etc/shadow"
    touch "$etc/machine-id" "$etc/fstab"
    echo rtd >"$etc/hostname"
    mkdir -p "$etc"/{sysusers.d,systemd/system}
    echo 'u rtd -' >"$etc/sysusers.d/rtd.conf" # useradd --system --user-group rtd
    for program in "${installed[@]:0:3}"; do
        ln -f "$root$program" "$root/usr/bin/" 2>/dev/null || cp "$root$program" "$root/usr/bin/"
    done
    cp configs/demo-arm.toml "$etc/rtd.toml"
    cp configs/systemd/* "$parts"/rt-vm.{service,target} "$etc/systemd/system/"
    # What waits for a device manager or a bus that is not there.
    for unit in systemd-logind.service getty.target; do ln -sf /dev/null "$etc/systemd/system/$unit"; done
}

# initramfs: everything above, into $work/initramfs. All of it is root's there.
initramfs() {
    set +m
    root=$work/root
    mkdir -p "$root"
    [ -z "$systemd" ] || tar -xf "$(<"$work/debian")" -C "$root"
    common_files
    if [ -n "$systemd" ]; then systemd_files; else busybox_files; fi
    mkdir -p "$root"/{dev,proc,run,sys}
    chmod 755 "$root" "$root/init" "$root/rt-vm/report" && chmod 1777 "$root/tmp" "$root/var/tmp"
    (cd "$root" && find . | cpio -o -H newc --quiet --owner 0:0) >"$work/initramfs"
    rm -rf "$root"
}

# Kernel's command line beside what every machine gets.
kernel_options() {
    [ -z "$systemd" ] || echo "systemd.unit=rt-vm.target systemd.getty_auto=0"
}
