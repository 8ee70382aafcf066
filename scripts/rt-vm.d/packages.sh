# Read by scripts/rt-vm: what comes out of Debian packages, unpacked without being installed, and kept in the cache.
# Everything arrives under another name and is renamed, so that what is in the cache is whole.
# shellcheck shell=bash
# shellcheck disable=SC2154 # work, systemd: scripts/rt-vm

cache=${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}/rtd

# As if nothing were installed: apt then knows the archive's versions alone.
nothing_installed=(-q -o Dir::State::status=/dev/null)

# download NAME...: fetches packages into $work/deb.
download() {
    mkdir -p "$work/deb"
    env -C "$work/deb" apt-get "${nothing_installed[@]}" download "$@" >"$work/apt.log" 2>&1 ||
        die "cannot fetch $1: $(grep -m 1 '^E:' "$work/apt.log" || tail -n 1 "$work/apt.log") (apt-get update?)"
}

# package NAME FILE TO: one file of a package.
package() {
    download "$1"
    mkdir -p "$work/unpacked"
    dpkg-deb --fsys-tarfile "$work/deb/$1"_*.deb | tar -xf - -C "$work/unpacked" "./$2" || die "$1 has no $2"
    cp "$work/unpacked/$2" "$3.new" && mv "$3.new" "$3"
}

fetch_kernel() {
    local name version packed offset
    name=$(apt-cache depends linux-image-rt-amd64 2>/dev/null |
        sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1) || true
    # Without package lists an earlier kernel is as good.
    version=${name#linux-image-}
    kernel=$cache/vmlinux-$version
    if [ -z "$name" ]; then
        kernel=$(find "$cache" -maxdepth 1 -name 'vmlinux-*-rt-amd64' | sort -V | tail -n 1)
        [ -n "$kernel" ] || die "apt does not know linux-image-rt-amd64 (Debian amd64 has it): apt-get update"
    fi
    [ ! -s "$kernel" ] || return 0
    need xz xz-utils
    packed=$work/vmlinuz
    package "$name" "boot/vmlinuz-$version" "$packed"
    # Uncompressed it boots in seconds: the emulator would take longer to unpack it than to run it.
    offset=$(LC_ALL=C grep -aobP '\xfd7zXZ\x00' "$packed" | head -n 1 | cut -d: -f1)
    [ -n "$offset" ] || die "$name is not packed with xz: $parts/packages.sh has to learn how it is"
    tail -c "+$((offset + 1))" "$packed" | xz -dc --single-stream 2>/dev/null >"$work/vmlinux" || true
    [ "$(head -c 4 "$work/vmlinux" | tail -c 3)" = ELF ] || die "no kernel came out of $name"
    mv "$work/vmlinux" "$kernel.new" && mv "$kernel.new" "$kernel"
    rm -f "$packed"
}

# A Debian with systemd and the tools to look at a service, as an archive. No package's scripts run: what those would
# have set up, and this machine needs, is written by `systemd_files` in root.sh.
systemd_wants=(systemd systemd-sysv base-files base-passwd bash dash coreutils findutils grep sed mawk util-linux mount
    procps hostname login passwd libcap2-bin)
# They come along by dependency, and serve maintainers' scripts alone.
systemd_spares='^(perl|lib.*-perl$|libperl|libgdbm|usrmerge|debconf|libdebconf|init-system-helpers|dpkg$|tar$)'
fetch_systemd() {
    local list base
    list=$(apt-get -s "${nothing_installed[@]}" install --no-install-recommends "${systemd_wants[@]}" \
        2>"$work/apt.log" | awk -v spare="$systemd_spares" '/^Inst/ && $2 !~ spare { print $2, $3 }' | sort) ||
        die "apt cannot make a list of ${systemd_wants[*]}: $(tail -n 1 "$work/apt.log") (apt-get update?)"
    debian=$cache/systemd-$(printf '%s' "$list $(cat "${BASH_SOURCE[0]}")" | sha256sum | head -c 16).tar
    [ ! -s "$debian" ] || return 0
    # shellcheck disable=SC2046 # a word is a package
    download $(cut -d' ' -f1 <<<"$list")
    base=$work/debian
    mkdir -p "$base"/usr/{bin,sbin,lib,lib64}
    for directory in bin sbin lib lib64; do ln -s "usr/$directory" "$base/$directory"; done
    for deb in "$work"/deb/*.deb; do
        dpkg-deb --fsys-tarfile "$deb" | tar -xf - -C "$base" --keep-directory-symlink \
            --exclude='./usr/share/doc*' --exclude='./usr/share/man' --exclude='./usr/share/locale' \
            --exclude='./usr/share/info' --exclude='./usr/share/perl5' --exclude='*/gconv/*' --exclude='./dev/*' ||
            die "cannot unpack ${deb##*/}"
    done
    tar -cf "$debian.new" -C "$base" .
    find "$cache" -maxdepth 1 -name 'systemd-*.tar' -delete
    mv "$debian.new" "$debian"
    rm -rf "$base" "$work/deb"
}

# fetch: all that is wanted; the paths of the kernel and of the Debian into $work/kernel and $work/debian.
fetch() {
    set +m
    need apt-get apt
    need dpkg-deb dpkg
    mkdir -p "$cache" || die "there is no place for the kernel: set XDG_CACHE_HOME to a directory that may be written"
    fetch_kernel
    [ -s "$cache/busybox" ] || package busybox-static bin/busybox "$cache/busybox"
    [ -z "$systemd" ] || fetch_systemd
    echo "$kernel" >"$work/kernel"
    echo "${debian:-}" >"$work/debian"
}
