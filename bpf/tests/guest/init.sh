#!/bin/dash
# Process 1 of a guest: sets up what a host has, runs the oracle, says how it ended, and ends the machine.
#
# The file /words says where the executables are, and what to run. Next: run.sh.
export PATH=/bin HOME=/root TMPDIR=/scratch
/bin/busybox mount -t proc none /proc
# What is there already, as ip and tc of iproute2, stays.
/bin/busybox --install -s /bin 2>/dev/null
mount -t sysfs none /sys
mount -t devtmpfs none /dev
mount -t securityfs none /sys/kernel/security
mount -t cgroup2 none /sys/fs/cgroup
# Not /tmp: the executables may be below it.
for dir in /run /scratch; do mount -t tmpfs none "$dir"; done
mkdir -p /run/netns
# Modules need others: as long as one more goes in, the rest is tried again.
waiting="$(ls /modules/*.ko)"
more=yes
while [ "$more" = yes ]; do
    more=no left=
    for module in $waiting; do
        if insmod "$module" 2>/dev/null; then more=yes; else left="$left $module"; fi
    done
    waiting="$left"
done
[ -n "$waiting" ] && echo "guest: refused:$waiting"
ip link set lo up
echo "guest: Linux $(uname -r), security modules $(cat /sys/kernel/security/lsm)"
. /words
tests() {
    "$CHAOS" doctor
    "$ORACLE" --color never && "$NETPROBE" --color never packets_that_match_are_in_the_file
}
commands
echo "guest: ended $?"
sync
# There is nobody to go back to.
poweroff -f
