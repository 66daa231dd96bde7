# The probe guest: the smallest program that asks of a virtual machine what a
# kernel asks first. QEMU loads it with -kernel, as it loads Linux, so that the
# firmware and the boot ROM take part. It
#
#   - starts in real mode, goes to protected mode, then to long mode with
#     paging (4 levels, 2 MiB pages);
#   - writes to 32 MiB of fresh memory, one word in each 4 KiB page, and reads
#     it all: 17 million instructions, nothing for a CPU or for TCG, and far
#     too many for a KVM without hardware that emulates them one by one;
#   - runs CPUID, which every hypervisor intercepts;
#   - programs the interrupt controller and the timer, halts, and counts 20
#     timer interrupts;
#   - says "lab: probe guest is up" on COM1 by port I/O, and resets.
#
# tiny.bin is this file, assembled (TestTiny compares them):
#   as --64 -o tiny.o tiny.S && ld -m elf_x86_64 -Ttext 0 --oformat binary -e 0 -o tiny.bin tiny.o
#
# Format: Linux' x86 boot protocol 2.02 (Documentation/arch/x86/boot.rst). The
# setup part runs at 0x10000 (QEMU's choice), the payload at 1 MiB.

	.set	PAYLOAD, 0x100000
	.set	PML4, 0x110000
	.set	PDPT, 0x111000
	.set	PD, 0x112000
	.set	IDT, 0x113000
	.set	STACK, 0x118000
	.set	COM1, 0x3f8

	.text
start:
	.org	0x1f1
	.byte	4			# setup_sects: setup is (1+4)*512 bytes
	.word	0			# root_flags
	.long	1			# syssize, in 16 bytes
	.word	0, 0xffff, 0		# ram_size, vid_mode, root_dev
	.word	0xaa55			# boot_flag
	.code16
	jmp	setup			# 0x200: the entry, in real mode
	.org	0x202
	.ascii	"HdrS"
	.word	0x0202			# protocol version
	.long	0			# realmode_swtch
	.word	0			# start_sys_seg
	.word	0			# kernel_version
	.byte	0			# type_of_loader
	.byte	1			# loadflags: LOADED_HIGH
	.word	0			# setup_move_size
	.long	PAYLOAD			# code32_start
	.long	0, 0, 0			# ramdisk_image, ramdisk_size, bootsect_kludge
	.word	0, 0			# heap_end_ptr, ext_loader_ver
	.long	0			# cmd_line_ptr
	.long	0			# initrd_addr_max: QEMU writes here, asked or not
	.org	0x240

# Real mode. CS is 0x1020, the other segments 0x1000.
setup:
	cli
	cld
	inb	$0x92, %al		# A20, "fast" way
	orb	$2, %al
	outb	%al, $0x92
	movw	%ds, %ax
	movzwl	%ax, %eax
	shll	$4, %eax
	addl	$gdt, %eax		# the GDT's linear address
	movl	%eax, gdtr+2
	lgdtl	gdtr
	movl	%cr0, %eax
	orl	$1, %eax
	movl	%eax, %cr0
	ljmpl	$0x08, $PAYLOAD

	.balign	8
gdt:	.quad	0
	.quad	0x00cf9b000000ffff	# 0x08: 32-bit code
	.quad	0x00cf93000000ffff	# 0x10: data
	.quad	0x00af9b000000ffff	# 0x18: 64-bit code
gdtr:	.word	. - gdt - 1
	.long	0

	.org	0xa00
	.code32
payload:
	movw	$0x10, %ax
	movw	%ax, %ds
	movw	%ax, %es
	movw	%ax, %ss
	movl	$STACK, %esp
	xorl	%eax, %eax		# clear the tables and the IDT
	movl	$PML4, %edi
	movl	$(0x4000 / 4), %ecx
	rep stosl
	movl	$(PDPT + 3), PML4	# present, writable
	movl	$(PD + 3), PDPT
	movl	$PD, %edi
	movl	$0x83, %eax		# present, writable, 2 MiB
	movl	$512, %ecx
1:	movl	%eax, (%edi)
	addl	$0x200000, %eax
	addl	$8, %edi
	loop	1b
	movl	$PML4, %eax
	movl	%eax, %cr3
	movl	%cr4, %eax
	orl	$0x20, %eax		# PAE
	movl	%eax, %cr4
	movl	$0xc0000080, %ecx	# EFER
	rdmsr
	orl	$0x100, %eax		# LME
	wrmsr
	movl	%cr0, %eax
	orl	$0x80000000, %eax	# PG
	movl	%eax, %cr0
	ljmpl	$0x18, $(PAYLOAD + long - payload)

	.code64
long:
	movl	$0x1000000, %edi	# 16 MiB to 48 MiB
	movl	$(32 << 8), %ecx
1:	movq	%rdi, (%rdi)
	addq	$4096, %rdi
	loop	1b

	movl	$0x1000000, %esi	# read them all, qword by qword
	movl	$(32 << 17), %ecx
	xorl	%ebx, %ebx
1:	addq	(%rsi), %rbx
	addq	$8, %rsi
	decl	%ecx
	jnz	1b

	movl	$16, %r8d		# CPUID, 16 times
1:	xorl	%eax, %eax
	cpuid
	decl	%r8d
	jnz	1b

	movl	$(PAYLOAD + tick - payload), %eax
	movl	$(IDT + 0x20 * 16), %edi	# an interrupt gate for IRQ 0
	movw	%ax, (%rdi)
	movw	$0x18, 2(%rdi)
	movw	$0x8e00, 4(%rdi)
	shrl	$16, %eax
	movw	%ax, 6(%rdi)
	lidt	idtr(%rip)

	movb	$0x11, %al		# 8259: ICW1, both
	outb	%al, $0x20
	outb	%al, $0xa0
	movb	$0x20, %al		# ICW2: vectors 0x20 and 0x28
	outb	%al, $0x21
	movb	$0x28, %al
	outb	%al, $0xa1
	movb	$4, %al			# ICW3
	outb	%al, $0x21
	movb	$2, %al
	outb	%al, $0xa1
	movb	$1, %al			# ICW4: 8086 mode
	outb	%al, $0x21
	outb	%al, $0xa1
	movb	$0xfe, %al		# only IRQ 0
	outb	%al, $0x21
	movb	$0xff, %al
	outb	%al, $0xa1
	movb	$0x34, %al		# 8254: channel 0, rate generator
	outb	%al, $0x43
	movb	$(1193 & 0xff), %al	# 1193182 Hz / 1193: a millisecond
	outb	%al, $0x40
	movb	$(1193 >> 8), %al
	outb	%al, $0x40

	xorl	%ebx, %ebx
	sti
1:	hlt
	cmpl	$20, %ebx
	jb	1b
	cli

	leaq	message(%rip), %rsi
say:	movw	$(COM1 + 5), %dx
1:	inb	%dx, %al
	testb	$0x20, %al		# transmitter empty
	jz	1b
	lodsb
	testb	%al, %al
	jz	reset
	movw	$COM1, %dx
	outb	%al, %dx
	jmp	say

reset:	movb	$0xfe, %al		# pulse the reset line: with -no-reboot QEMU ends
	outb	%al, $0x64
1:	hlt
	jmp	1b

tick:	incl	%ebx
	pushq	%rax
	movb	$0x20, %al		# end of interrupt
	outb	%al, $0x20
	popq	%rax
	iretq

idtr:	.word	0x21 * 16 - 1
	.quad	IDT
message:
	.asciz	"lab: probe guest is up\n"
	.org	0xc00
