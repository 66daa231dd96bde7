package demo

// series is the history above the archive's files. The first change belongs to
// the base; the search has the rest before it: 13 on main, 5 on the branch
// audit-netns that leaves main after the third, the merge and 5 more.
//
// The places edited read the same from Linux 6.1 to 6.12. The commit that does
// not build and the one after it lie in the middle, where a bisection looks
// first; the culprit lies behind the merge.
var series = []change{
	{
		Is:    isGood,
		Title: "audit: keep the kernel's socket in the initial network namespace",
		Body: `Create the kernel's end of NETLINK_AUDIT in the initial network namespace only. A message sent from another one finds nobody listening and is refused with ECONNREFUSED, which user space takes for a kernel without audit.

There is one audit daemon, and it runs in the initial namespace.`,
		Edits: []edit{{
			"kernel/audit.c",
			"\tstruct audit_net *aunet = net_generic(net, audit_net_id);\n\n\taunet->sk = netlink_kernel_create(",
			"\tstruct audit_net *aunet = net_generic(net, audit_net_id);\n" +
				"\n\t/* one audit socket, in the initial network namespace only */\n\tif (!net_eq(net, &init_net))\n\t\treturn 0;\n" +
				"\n\taunet->sk = netlink_kernel_create(",
		}},
	},

	// main, up to where the branch leaves

	{
		Title: "Documentation: namespaces: fix the title of resource control",
		Body:  `The page is about controlling resources, not about research. While here, fix the number of a problem and an apostrophe too many.`,
		Edits: []edit{
			{"Documentation/admin-guide/namespaces/resource-control.rst", "Namespaces research control", "Namespaces resource control"},
			{"Documentation/admin-guide/namespaces/resource-control.rst", "this problems becomes", "this problem becomes"},
			{"Documentation/admin-guide/namespaces/resource-control.rst", "memory user's they", "memory users they"},
		},
	},
	{
		Title: "lib/bsearch: say what is returned",
		Body:  `The comment names all parameters but not the result, and leaves open whether an empty array may be passed. It may.`,
		Edits: []edit{{
			"lib/bsearch.c",
			" * the same comparison function for both sort() and bsearch().\n */",
			" * the same comparison function for both sort() and bsearch().\n *\n" +
				" * Return: an element that compares equal to the key (any of them, if\n" +
				" * there are several), or NULL; always NULL when @num is 0.\n */",
		}},
	},
	{
		Title: "riscv: delay: fix a typo in a comment",
		Body:  `"copies" should read "copied".`,
		Edits: []edit{{"arch/riscv/lib/delay.c", "This is copies from", "This is copied from"}},
	},

	// the branch with the culprit

	{
		Branch: "audit-netns",
		Title:  "audit: describe the fsnotify mark in kernel-doc",
		Body:   `Turn the comment above struct audit_fsnotify_mark into kernel-doc, so that the two inodes it speaks of are told apart member by member.`,
		Edits: []edit{{
			"kernel/audit_fsnotify.c",
			"/*\n * this mark lives on the parent directory of the inode in question.\n * but dev, ino, and path are about the child\n */",
			"/**\n * struct audit_fsnotify_mark - what a rule watches\n" +
				" * @dev: superblock device of the child\n * @ino: inode number of the child\n * @path: path of the child, as the rule gave it\n" +
				" * @mark: the mark itself, which lives on the parent directory\n * @rule: the rule that asked for it\n */",
		}},
	},
	{
		Branch: "audit-netns",
		Title:  "Documentation: namespaces: describe audit in network namespaces",
		Body:   `Where a process in another network namespace finds the audit socket, and what it may do there, was written down nowhere.`,
		Edits: []edit{
			{
				"Documentation/admin-guide/namespaces/audit.rst", "",
				".. SPDX-License-Identifier: GPL-2.0\n\n=============================\nAudit and network namespaces\n=============================\n\n" +
					"The kernel's end of ``NETLINK_AUDIT`` belongs to a network namespace. A\nprocess reaches it from the namespaces that have one, and there it needs\n" +
					"``CAP_AUDIT_WRITE`` in the initial user namespace to send a message, and\n``CAP_AUDIT_CONTROL`` to change a rule.\n\n" +
					"The answer to a message that asks for one (``NLM_F_ACK``) is 0 or a negative\nerror number. Programs that write audit messages through libaudit get to see\n" +
					"it as the result of ``audit_log_user_message()``.\n",
			},
			{
				"Documentation/admin-guide/namespaces/index.rst",
				"   resource-control\n",
				"   resource-control\n   audit\n",
			},
		},
	},
	{
		Is:     isCulprit,
		Branch: "audit-netns",
		Title:  "audit: listen in all network namespaces",
		Body: `A program in a container that has a network namespace of its own cannot write an audit message, however privileged it is: nobody listens there. Create the kernel's socket in every network namespace.

Who may send what is decided when the message arrives, by the capabilities of its sender, as before.`,
		Edits: []edit{{
			"kernel/audit.c",
			"\n\t/* one audit socket, in the initial network namespace only */\n\tif (!net_eq(net, &init_net))\n\t\treturn 0;\n",
			"",
		}},
	},
	{
		Branch: "audit-netns",
		Title:  "audit: say whose socket could not be made",
		Body:   `With a socket for each network namespace the message "cannot initialize netlink socket in namespace" may be about a container that comes and goes. Name the kernel as the one who wanted the socket, and the protocol.`,
		Edits: []edit{{
			"kernel/audit.c",
			`audit_panic("cannot initialize netlink socket in namespace");`,
			`audit_panic("cannot create the kernel's NETLINK_AUDIT socket in namespace");`,
		}},
	},
	{
		Branch: "audit-netns",
		Title:  "audit: give the send timeout a name",
		Body:   `HZ / 10 stands in the middle of audit_net_init(). Put it where the other times are.`,
		Edits: []edit{
			{
				"kernel/audit.c",
				"#define AUDIT_BACKLOG_WAIT_TIME (60 * HZ)\n",
				"#define AUDIT_BACKLOG_WAIT_TIME (60 * HZ)\n#define AUDIT_SEND_TIMEOUT (HZ / 10)\n",
			},
			{"kernel/audit.c", "aunet->sk->sk_sndtimeo = HZ / 10;", "aunet->sk->sk_sndtimeo = AUDIT_SEND_TIMEOUT;"},
		},
	},

	// main, meanwhile

	{
		Title: "fs/proc: version: look up the uts namespace once",
		Body:  `version_proc_show() follows current->nsproxy three times for one line.`,
		Edits: []edit{{
			"fs/proc/version.c",
			"\tseq_printf(m, linux_proc_banner,\n\t\tutsname()->sysname,\n\t\tutsname()->release,\n\t\tutsname()->version);\n",
			"\tconst struct new_utsname *name = utsname();\n\n\tseq_printf(m, linux_proc_banner,\n\t\tname->sysname,\n\t\tname->release,\n\t\tname->version);\n",
		}},
	},
	{
		Title: "watchdog: softdog: name the parameter that keeps the machine up",
		Body:  `Who reads "Reboot ignored" in a log wants to know what to change.`,
		Edits: []edit{{
			"drivers/watchdog/softdog.c",
			`pr_crit("Triggered - Reboot ignored\n");`,
			`pr_crit("Triggered - Reboot ignored (soft_noboot)\n");`,
		}},
	},
	{
		Title: "fs: filesystems: say how many names fitted",
		Body:  `When the list of block device file systems does not fit, the warning leaves one guessing which of them the kernel will still try for its root.`,
		Edits: []edit{{
			"fs/filesystems.c",
			`pr_warn("%s: truncating file system list\n", __func__);`,
			`pr_warn("%s: only %d names fit\n", __func__, count);`,
		}},
	},
	{
		Title: "ext4: use https for the wiki's address",
		Body:  `In the help text of EXT4_FS.`,
		Edits: []edit{{"fs/ext4/Kconfig", "http://ext4.wiki.kernel.org.", "https://ext4.wiki.kernel.org."}},
	},
	{
		Title: "virtio: describe struct virtio_shm_region",
		Body:  `Its members are filled in by the transports and read by drivers; say in what unit.`,
		Edits: []edit{{
			"include/linux/virtio_config.h",
			"struct virtio_shm_region {\n",
			"/**\n * struct virtio_shm_region - a region of memory shared with the device\n" +
				" * @addr: guest physical address\n * @len: length in bytes\n */\nstruct virtio_shm_region {\n",
		}},
	},
	{
		Title: "Documentation: ext4: fix grammar in special inodes",
		Body:  `"generally reference from" lacks two letters.`,
		Edits: []edit{{"Documentation/filesystems/ext4/special_inodes.rst", "generally reference from", "generally referenced from"}},
	},
	{
		Title: "exec_domain: name the value that only asks",
		Body:  `personality(0xffffffff) returns the personality and leaves it alone. Give the number a name.`,
		Edits: []edit{
			{
				"kernel/exec_domain.c",
				"SYSCALL_DEFINE1(personality, unsigned int, personality)\n",
				"/* personality(2) with this value changes nothing */\n#define PERSONALITY_QUERY\t0xffffffff\n\nSYSCALL_DEFINE1(personality, unsigned int, personality)\n",
			},
			{"kernel/exec_domain.c", "if (personality != 0xffffffff)", "if (personality != PERSONALITY_QUERY)"},
		},
	},
	{
		Title: "fs/proc: uptime: sum the idle time in a function of its own",
		Body:  `uptime_proc_show() does two things, and only one of them has a loop.`,
		Edits: []edit{
			{
				"fs/proc/uptime.c",
				"static int uptime_proc_show(struct seq_file *m, void *v)\n",
				"static u64 uptime_idle_nsec(void)\n{\n\tu64 sum = 0;\n\tint i;\n\n\tfor_each_possible_cpu(i) {\n\t\tstruct kernel_cpustat kcs;\n\n" +
					"\t\tkcpustat_cpu_fetch(&kcs, i);\n\t\tsum += get_idle_time(&kcs, i);\n\t}\n\treturn sum;\n}\n\nstatic int uptime_proc_show(struct seq_file *m, void *v)\n",
			},
			{
				"fs/proc/uptime.c",
				"\tidle_nsec = 0;\n\tfor_each_possible_cpu(i) {\n\t\tstruct kernel_cpustat kcs;\n\n\t\tkcpustat_cpu_fetch(&kcs, i);\n\t\tidle_nsec += get_idle_time(&kcs, i);\n\t}\n",
				"\tidle_nsec = uptime_idle_nsec(m);\n",
			},
			{"fs/proc/uptime.c", "\tu32 rem;\n\tint i;\n", "\tu32 rem;\n"},
		},
	},
	{
		Title: "leds: trigger: oneshot: use sysfs_emit()",
		Body:  `As Documentation/filesystems/sysfs.rst asks for.`,
		Edits: []edit{{
			"drivers/leds/trigger/ledtrig-oneshot.c",
			`return sprintf(buf, "%u\n", oneshot_data->invert);`,
			`return sysfs_emit(buf, "%u\n", oneshot_data->invert);`,
		}},
	},
	{
		Title: "fs/proc: uptime: fix the build",
		Body:  `uptime_idle_nsec() takes no argument; the seq_file was left over from an earlier version of the patch.`,
		Edits: []edit{{"fs/proc/uptime.c", "uptime_idle_nsec(m);", "uptime_idle_nsec();"}},
	},
	{
		Merge: "audit-netns",
		Title: "Merge branch 'audit-netns'",
		Body:  `Audit in network namespaces: the kernel listens in each of them, and a page of documentation says what that means.`,
	},

	// after the merge

	{
		Title: "mm: msync: use PAGE_ALIGN()",
		Body:  `It is what the expression spells out.`,
		Edits: []edit{{"mm/msync.c", "len = (len + ~PAGE_MASK) & PAGE_MASK;", "len = PAGE_ALIGN(len);"}},
	},
	{
		Title: "w1: smem: say what the families are",
		Body:  `Two bare numbers; a reader should not need the data sheets to learn that neither chip holds more than its serial number.`,
		Edits: []edit{{
			"drivers/w1/slaves/w1_smem.c",
			"#define W1_FAMILY_SMEM_01\t0x01\n",
			"/* nothing but a serial number: DS2401 and DS1420 */\n#define W1_FAMILY_SMEM_01\t0x01\n",
		}},
	},
	{
		Title: "fs: drop_caches: say when the message comes for the last time",
		Body:  `Writing 4 silences the message about who dropped caches, the next one as well as all others. Say so in the last one, for whoever wonders why there are no more.`,
		Edits: []edit{
			{
				"fs/drop_caches.c",
				"\t\t\tpr_info(\"%s (%d): drop_caches: %d\\n\",\n",
				"\t\t\tpr_info(\"%s (%d): drop_caches: %d%s\\n\",\n",
			},
			{
				"fs/drop_caches.c",
				"\t\t\t\tsysctl_drop_caches);\n",
				"\t\t\t\tsysctl_drop_caches,\n\t\t\t\tsysctl_drop_caches & 4 ? \", quiet from now on\" : \"\");\n",
			},
		},
	},
	{
		Title: "s390: delay: explain the conversion in __udelay()",
		Body:  `The shift by 12 is the TOD clock's unit, and easily taken for an approximation of something.`,
		Edits: []edit{{
			"arch/s390/lib/delay.c",
			"\tdelay_loop(usecs << 12);\n",
			"\t/* bit 51 of the TOD clock counts microseconds: 4096 units each */\n\tdelay_loop(usecs << 12);\n",
		}},
	},
	{
		Title: "Documentation: initrd: add a missing article",
		Body:  `Step 4 lacks the one that step 3 has.`,
		Edits: []edit{{"Documentation/admin-guide/initrd.rst", "  4) root device is mounted.", "  4) the root device is mounted."}},
	},
}
