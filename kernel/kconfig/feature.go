package kconfig

// need is a symbol that something cannot do without. module names the loadable
// module that provides it, where lab's guest can load one.
type need struct {
	symbol, module, why string
}

// A Level says how much a feature is needed.
type Level string

// The levels.
const (
	Required Level = "required" // lab's guest, or any container, cannot run without it
	Engine   Level = "engine"   // a container engine cannot, with its usual network and storage; lab itself says what it does without
	Optional Level = "optional" // some containers, or some tests, ask for it
)

// The groups of features, in the order in which they are told.
const (
	groupGuest     = "lab's guest"
	groupMachine   = "lab's machine"
	groupContainer = "containers"
	groupCgroup    = "control groups"
	groupNetwork   = "an engine's network"
	groupStorage   = "storage"
	groupAudit     = "audit"
	groupSecurity  = "security modules"
)

// A feature is what a kernel can be asked for: a symbol, since and until which
// version of Linux it is there (both included, "" for always), how much it is
// needed, what for, and where that is known from.
type feature struct {
	group string
	need
	level        Level
	since, until string
	source       string
}

// Where a feature is known from.
const (
	fromLab    = "lab's agent (probe/agent) and machine (kernel/qemu)"
	fromDocker = "moby, contrib/check-config.sh"
	fromCgroup = "Linux, Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst"
	fromMan    = "namespaces(7), user_namespaces(7), time_namespaces(7)"
	fromPodman = "podman, rootless tutorial"
	fromAudit  = "Linux, init/Kconfig: Auditing support"
	fromSec    = "Linux, Documentation/admin-guide/LSM"
)

// features is the one table that every check goes by: Guest and UEFI before a
// boot, Check for people. Within a group the order is that in which a boot, or a
// container's start, would come to miss them.
var features = []feature{
	{groupGuest, need{"64BIT", "", "the guest's programs are 64-bit"}, Required, "", "", fromLab},
	{groupGuest, need{"PRINTK", "", "the console log is evidence"}, Required, "", "", fromLab},
	{groupGuest, need{"SERIAL_8250_CONSOLE", "", "the console is a serial port"}, Required, "", "", fromLab},
	{groupGuest, need{"BLK_DEV_INITRD", "", "the guest starts from an initramfs"}, Required, "", "", fromLab},
	{groupGuest, need{"BINFMT_ELF", "", "PID 1 is an ELF program"}, Required, "", "", fromLab},
	{groupGuest, need{"FUTEX", "", "PID 1 is a Go program"}, Required, "", "", fromLab},
	{groupGuest, need{"EPOLL", "", "PID 1 is a Go program"}, Required, "", "", fromLab},
	{groupGuest, need{"EVENTFD", "", "PID 1 is a Go program"}, Required, "", "", fromLab},
	{groupGuest, need{"PROC_FS", "", "PID 1 mounts /proc"}, Required, "", "", fromLab},
	{groupGuest, need{"SYSFS", "", "PID 1 finds its devices in /sys"}, Required, "", "", fromLab},
	{groupGuest, need{"TMPFS", "", "the container's /dev is a tmpfs"}, Required, "", "", fromLab},
	{groupGuest, need{"DEVTMPFS", "", "the device nodes of disk and ports come from it"}, Required, "", "", fromLab},
	{groupGuest, need{"PCI", "", "the guest's devices sit on PCI"}, Required, "", "", fromLab},
	{groupGuest, need{"EFI_PARTITION", "", "the guest's disk has a GPT"}, Required, "", "", fromLab},
	{groupGuest, need{"EXT4_FS", "ext4", "the guest's file system is ext4"}, Required, "", "", fromLab},

	{groupMachine, need{"VIRTIO_PCI", "virtio_pci", "the guest's devices are virtio devices on PCI"}, Required, "", "", fromLab},
	{groupMachine, need{"VIRTIO_BLK", "virtio_blk", "the guest's disk is a virtio block device"}, Required, "", "", fromLab},

	{groupContainer, need{"NAMESPACES", "", "a container needs namespaces"}, Engine, "", "", fromLab},
	{groupContainer, need{"UTS_NS", "", "a container has a host name of its own"}, Engine, "", "", fromLab},
	{groupContainer, need{"IPC_NS", "", "a container has System V IPC of its own"}, Engine, "", "", fromLab},
	{groupContainer, need{"PID_NS", "", "a container has process numbers of its own"}, Engine, "", "", fromLab},
	{groupContainer, need{"NET_NS", "", "a container has a network of its own"}, Engine, "", "", fromLab},
	{groupContainer, need{"MULTIUSER", "", "a container runs as users other than root"}, Required, "4.1", "", fromLab},
	{groupContainer, need{"CGROUPS", "", "a container's processes are kept together and counted"}, Engine, "", "", fromDocker},
	{groupContainer, need{"DEVPTS_MULTIPLE_INSTANCES", "", "a container has terminals of its own; later kernels always do that"}, Engine, "2.6.29", "4.6", fromDocker},
	{groupContainer, need{"UNIX98_PTYS", "", "a container has terminals"}, Engine, "", "", fromDocker},
	{groupContainer, need{"SYSVIPC", "", "System V message queues, semaphores and shared memory"}, Optional, "", "", fromMan},
	{groupContainer, need{"POSIX_MQUEUE", "", "/dev/mqueue"}, Engine, "", "", fromDocker},
	{groupContainer, need{"KEYS", "", "each container has a session keyring"}, Engine, "", "", fromDocker},
	{groupContainer, need{"SECCOMP", "", "system calls can be refused"}, Optional, "", "", fromDocker},
	{groupContainer, need{"SECCOMP_FILTER", "", "by a filter, as an engine's default profile is"}, Optional, "3.5", "", fromDocker},
	{groupContainer, need{"USER_NS", "", "rootless containers and remapped users"}, Optional, "", "", fromDocker},
	{groupContainer, need{"TIME_NS", "", "a container with a clock of its own"}, Optional, "5.6", "", fromMan},

	{groupCgroup, need{"MEMCG", "", "memory limits"}, Optional, "3.6", "", fromCgroup},
	{groupCgroup, need{"CGROUP_MEM_RES_CTLR", "", "memory limits, by the name before 3.6"}, Optional, "2.6.25", "3.5", fromCgroup},
	{groupCgroup, need{"RESOURCE_COUNTERS", "", "what memory limits count with"}, Optional, "2.6.25", "3.18", fromDocker},
	{groupCgroup, need{"MEMCG_KMEM", "", "the kernel's own memory counts too"}, Optional, "3.8", "4.5", fromDocker},
	{groupCgroup, need{"MEMCG_SWAP", "", "limits on swap; later kernels always have them"}, Optional, "3.6", "6.0", fromDocker},
	{groupCgroup, need{"MEMCG_V1", "", "memory limits by cgroup version 1"}, Optional, "6.11", "", fromCgroup},
	{groupCgroup, need{"CPUSETS", "", "processors and memory nodes can be chosen"}, Optional, "", "", fromDocker},
	{groupCgroup, need{"CGROUP_SCHED", "", "processor shares"}, Engine, "", "", fromDocker},
	{groupCgroup, need{"FAIR_GROUP_SCHED", "", "processor shares of ordinary processes"}, Optional, "", "", fromDocker},
	{groupCgroup, need{"CFS_BANDWIDTH", "", "processor limits (--cpus)"}, Optional, "3.2", "", fromDocker},
	{groupCgroup, need{"CGROUP_CPUACCT", "", "processor time is counted by cgroup version 1"}, Optional, "", "", fromDocker},
	{groupCgroup, need{"CGROUP_FREEZER", "", "containers can be paused"}, Optional, "", "", fromDocker},
	{groupCgroup, need{"CGROUP_DEVICE", "", "devices can be refused by cgroup version 1"}, Optional, "", "", fromDocker},
	{groupCgroup, need{"CGROUP_BPF", "", "devices can be refused by cgroup version 2"}, Optional, "4.10", "", fromDocker},
	{groupCgroup, need{"CGROUP_PIDS", "", "limits on the number of processes"}, Optional, "4.3", "", fromDocker},
	{groupCgroup, need{"BLK_CGROUP", "", "limits on disk traffic"}, Optional, "2.6.33", "", fromDocker},
	{groupCgroup, need{"BLK_DEV_THROTTLING", "", "in bytes and operations a second"}, Optional, "2.6.37", "", fromDocker},
	{groupCgroup, need{"CGROUP_HUGETLB", "", "limits on huge pages"}, Optional, "3.6", "", fromDocker},
	{groupCgroup, need{"CGROUP_PERF", "", "perf can look at one container"}, Optional, "2.6.39", "", fromDocker},
	{groupCgroup, need{"CGROUP_NET_PRIO", "", "network priorities"}, Optional, "3.14", "", fromDocker},
	{groupCgroup, need{"NETPRIO_CGROUP", "", "network priorities, by the name before 3.14"}, Optional, "3.3", "3.13", fromDocker},
	{groupCgroup, need{"NET_CLS_CGROUP", "", "network classes"}, Optional, "2.6.29", "", fromDocker},

	{groupNetwork, need{"VETH", "", "the cable between a container and the bridge"}, Engine, "2.6.24", "", fromDocker},
	{groupNetwork, need{"BRIDGE", "", "the bridge that containers hang on"}, Engine, "", "", fromDocker},
	{groupNetwork, need{"BRIDGE_NETFILTER", "", "rules hold between containers too"}, Engine, "", "", fromDocker},
	{groupNetwork, need{"NF_NAT", "", "containers reach the world, and ports them"}, Engine, "", "", fromDocker},
	{groupNetwork, need{"NF_NAT_IPV4", "", "the same, for IPv4"}, Engine, "3.7", "5.0", fromDocker},
	{groupNetwork, need{"NETFILTER_XT_MATCH_ADDRTYPE", "", "published ports"}, Engine, "2.6.39", "", fromDocker},
	{groupNetwork, need{"NETFILTER_XT_MATCH_CONNTRACK", "", "answers come back in"}, Engine, "", "", fromDocker},
	{groupNetwork, need{"IP_NF_FILTER", "", "iptables' filter table"}, Engine, "", "", fromDocker},
	{groupNetwork, need{"IP_NF_NAT", "", "iptables' nat table"}, Engine, "3.7", "", fromDocker},
	{groupNetwork, need{"IP_NF_TARGET_MASQUERADE", "", "containers share the host's address"}, Engine, "", "", fromDocker},
	{groupNetwork, need{"IP_NF_MANGLE", "", "iptables' mangle table"}, Optional, "", "", fromDocker},
	{groupNetwork, need{"IP_NF_RAW", "", "iptables' raw table"}, Optional, "", "", fromDocker},
	{groupNetwork, need{"IP6_NF_FILTER", "", "iptables' filter table, for IPv6"}, Optional, "", "", fromDocker},
	{groupNetwork, need{"IP6_NF_NAT", "", "iptables' nat table, for IPv6"}, Optional, "3.7", "", fromDocker},
	{groupNetwork, need{"IP6_NF_TARGET_MASQUERADE", "", "the same for IPv6"}, Optional, "3.7", "", fromDocker},
	{groupNetwork, need{"NF_TABLES", "", "nftables"}, Optional, "3.13", "", fromPodman},
	{groupNetwork, need{"NFT_COMPAT", "", "iptables on top of nftables"}, Optional, "3.13", "", fromPodman},
	{groupNetwork, need{"NETFILTER_XT_MATCH_IPVS", "", "an engine's load balancing (swarm)"}, Optional, "2.6.37", "", fromDocker},
	{groupNetwork, need{"VXLAN", "", "networks across hosts"}, Optional, "3.7", "", fromDocker},
	{groupNetwork, need{"TUN", "", "rootless networks (slirp4netns, pasta)"}, Optional, "", "", fromPodman},
	{groupNetwork, need{"MACVLAN", "", "macvlan networks"}, Optional, "2.6.23", "", fromDocker},
	{groupNetwork, need{"IPVLAN", "", "ipvlan networks"}, Optional, "3.19", "", fromDocker},
	{groupNetwork, need{"DUMMY", "", "networks that lead nowhere"}, Optional, "", "", fromDocker},

	{groupStorage, need{"OVERLAY_FS", "", "overlay, the usual storage driver"}, Engine, "3.18", "", fromDocker},
	{groupStorage, need{"EXT4_FS_POSIX_ACL", "", "ACLs of the image's files"}, Optional, "", "", fromDocker},
	{groupStorage, need{"EXT4_FS_SECURITY", "", "file capabilities and labels of the image's files"}, Optional, "", "", fromDocker},
	{groupStorage, need{"TMPFS_XATTR", "", "extended attributes in a tmpfs"}, Optional, "3.1", "", fromDocker},
	{groupStorage, need{"TMPFS_POSIX_ACL", "", "ACLs in a tmpfs"}, Optional, "", "", fromDocker},
	{groupStorage, need{"FUSE_FS", "", "rootless storage (fuse-overlayfs)"}, Optional, "", "", fromPodman},
	{groupStorage, need{"BTRFS_FS", "", "btrfs, another storage driver"}, Optional, "2.6.29", "", fromDocker},

	{groupAudit, need{"AUDIT", "", "what programs ask of audit (su, sshd, login) is answered"}, Optional, "", "", fromAudit},
	{groupAudit, need{"AUDITSYSCALL", "", "system calls are recorded"}, Optional, "", "", fromAudit},

	{groupSecurity, need{"SECURITY", "", "security modules"}, Optional, "", "", fromSec},
	{groupSecurity, need{"SECURITY_NETWORK", "", "labels on sockets, which SELinux needs"}, Optional, "", "", fromSec},
	{groupSecurity, need{"SECURITY_SELINUX", "", "SELinux"}, Optional, "", "", fromDocker},
	{groupSecurity, need{"SECURITY_APPARMOR", "", "AppArmor, with an engine's default profile"}, Optional, "2.6.36", "", fromDocker},
}

// needs is what lab's guest cannot do without on any machine, and virtio what
// its disk needs in lab's own.
var (
	needs  = needsOf(groupGuest)
	virtio = needsOf(groupMachine)
)

func needsOf(group string) []need {
	var list []need
	for _, f := range features {
		if f.group == group {
			list = append(list, f.need)
		}
	}
	return list
}
