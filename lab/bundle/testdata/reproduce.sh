#!/bin/sh
# Boots the two kernels of this bundle with QEMU alone, runs the test in each and
# compares its exit status with the recorded one:
#
#     tar xf bundle.tar && ./reproduce.sh
#
# Exit status: 0 the same as recorded, 1 different, 128 it could not be run.

# Quoted text is data, whatever it looks like.
# shellcheck disable=SC2016

qemu='qemu-system-x86_64'
seconds='151'
disk_gz='inputs/disk.img.gz'
disk_mib='1'
good='6.1.0 0123456789012345678901234567890123456789 one'
good_initramfs_gz='inputs/initramfs-good.cpio.gz'
good_recorded='0'
bad='6.1.0 0123456789012345678901234567890123456789 two '\''quoted'\'' $(touch evil)'
bad_initramfs_gz='inputs/initramfs-good.cpio.gz'
bad_recorded='1'

boot_good() {
	limit "$qemu" \
		-nodefaults \
		-display none \
		-accel tcg \
		-m 256 \
		-kernel kernels/good/bzImage \
		-initrd "$initramfs" \
		-append 'console=ttyS0 it'\''s="$(touch evil)" lab.echo' \
		-chardev stdio,id=console \
		-serial chardev:console \
		-drive if=none,id=disk0,snapshot=on,format=raw,file="$disk"
}

boot_bad() {
	limit "$qemu" \
		-nodefaults \
		-display none \
		-accel tcg \
		-m 256 \
		-kernel kernels/bad/bzImage \
		-initrd "$initramfs" \
		-append 'console=ttyS0 it'\''s="$(touch evil)" lab.echo' \
		-chardev stdio,id=console \
		-serial chardev:console \
		-drive if=none,id=disk0,snapshot=on,format=raw,file="$disk"
}

LC_ALL=C
export LC_ALL

fail() {
	printf 'reproduce.sh: %s\n' "$1" >&2
	exit 128
}

# limit runs a command for at most $seconds.
limit() {
	if timeout --foreground 1 true 2>/dev/null; then
		timeout --foreground "$seconds" "$@"
	elif timeout 1 true 2>/dev/null; then
		timeout "$seconds" "$@"
	else
		"$@"
	fi
}

# finished reads what a boot came to: QEMU's end and the test's exit status.
finished() {
	if [ -s "$work/qemu" ]; then
		read -r ended <"$work/qemu"
		case $ended in
		124 | 137 | 143) echo "==> stopped after $seconds seconds" ;;
		*) fail "$qemu ended with status $ended" ;;
		esac
	fi
	status=$(sed -n 's/^.*lab: test exited with status \([0-9]\{1,3\}\).*$/\1/p' "$work/console" | tail -n 1)
	status=${status:-none}
	rm -f "$work/qemu" "$work/console"
}

# compare says how a kernel's exit status compares with the recorded one.
compare() {
	if [ "$2" = "$3" ]; then
		printf '%s kernel: exit status %s, as recorded\n' "$1" "$2"
	else
		printf '%s kernel: exit status %s, recorded was %s\n' "$1" "$2" "$3"
		outcome=different
	fi
}

CDPATH='' cd -- "$(dirname -- "$0")" || fail 'cannot enter its own directory'
[ -n "$disk_gz" ] || fail 'this bundle is slim: its disk is made of the images in inputs/images by lab reproduce'
for tool in "$qemu" gzip sed tr tee tail; do
	command -v "$tool" >/dev/null 2>&1 || fail "$tool is not installed"
done
if command -v sha256sum >/dev/null 2>&1; then
	echo '==> checking the files'
	sums=$(sha256sum -c SHA256SUMS 2>&1) || {
		printf '%s\n' "$sums" | sed '/: OK$/d' >&2
		fail 'the bundle is damaged'
	}
fi

work=./reproduce.$$
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
(umask 077 && mkdir "$work") || fail "cannot make the directory $work here"
disk=$work/disk.img
initramfs=$work/initramfs

echo "==> expanding the disk ($disk_mib MiB)"
gzip -dc "$disk_gz" >"$disk" || fail 'cannot expand the disk'

gzip -dc "$good_initramfs_gz" >"$initramfs" || fail 'cannot expand the initramfs'
printf '==> booting the good kernel: %s\n' "$good"
{ boot_good || echo "$?" >"$work/qemu"; } 2>&1 </dev/null | tee "$work/console" | tr -cd '\11\12\40-\176'
finished
good_status=$status

gzip -dc "$bad_initramfs_gz" >"$initramfs" || fail 'cannot expand the initramfs'
printf '==> booting the bad kernel: %s\n' "$bad"
{ boot_bad || echo "$?" >"$work/qemu"; } 2>&1 </dev/null | tee "$work/console" | tr -cd '\11\12\40-\176'
finished
bad_status=$status

echo '==> exit statuses of the test ("none": the guest ended without one)'
outcome=same
compare good "$good_status" "$good_recorded"
compare bad "$bad_status" "$bad_recorded"
echo "$outcome"
[ "$outcome" = same ]
