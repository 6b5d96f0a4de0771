# A BIOS of one purpose: get to 64-bit mode with paging on, work a little, leave QEMU with code 33.
#
# Real-mode code and even a whole SeaBIOS run on some hosts whose KVM hangs or stops as soon as a guest
# enters long mode, so anything simpler than this would call them fit. The bytes live in
# server/wisp/adapters/kvm.py; `tests/contract/test_kvm.py` shows that they are these. To make them:
#
#     as --64 -o rom.o rom.S && objcopy -O binary -j .text rom.o rom.bin && xxd -p rom.bin
#
# QEMU maps a 64 KiB BIOS at 0xF0000 (and below 4 GiB); kvm.py puts this code at its start, and a
# jump to it at the reset vector, 16 bytes before its end.

        .set    BIOS, 0xf0000
        .set    PML4, 0x1000
        .set    PDPT, 0x2000
        .set    PD, 0x3000
        .text
        .code16
origin: cli
        movw    $0xf000, %ax
        movw    %ax, %ds
        lgdtl   table - origin
        movl    %cr0, %eax
        orb     $1, %al                         # protection
        movl    %eax, %cr0
        ljmpl   $8, $(BIOS + protected - origin)

        .code32
protected:
        movw    $16, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        xorl    %eax, %eax                      # three empty tables, then one 2 MiB page mapped to itself
        movl    $PML4, %edi
        movl    $(3 * 4096 / 4), %ecx
        rep stosl
        movl    $(PDPT + 3), PML4
        movl    $(PD + 3), PDPT
        movl    $0x83, PD
        movl    $PML4, %eax
        movl    %eax, %cr3
        movl    %cr4, %eax
        orb     $0x20, %al                      # physical address extension
        movl    %eax, %cr4
        movl    $0xc0000080, %ecx
        rdmsr
        orb     $1, %ah                         # long mode enable
        wrmsr
        movl    %cr0, %eax
        orl     $0x80000000, %eax               # paging
        movl    %eax, %cr0
        ljmpl   $24, $(BIOS + long - origin)

        .code64
long:   movl    $100000, %ecx                   # long enough to be interrupted by the host's timer
        movq    $0x8000, %rbx
1:      addq    %rcx, (%rbx)
        decq    %rcx
        jnz     1b
        movb    $16, %al                        # isa-debug-exit leaves with (value << 1) | 1
        outb    %al, $0xf4
2:      hlt
        jmp     2b

        .balign 8
gdt:    .quad   0
        .quad   0x00cf9a000000ffff              # 8: code, 32 bits
        .quad   0x00cf92000000ffff              # 16: data
        .quad   0x00af9a000000ffff              # 24: code, 64 bits
table:  .word   table - gdt - 1
        .long   BIOS + gdt - origin
