; Instructions that a device answers and that raise an interrupt by it: each happens once, and the
; interrupt comes behind it. Ports, MMIO and the local APIC; edges, levels and the PIC.
%include "common.inc"
%include "irq.inc"

%define LINE 5
%define LINE_PORT 0x2000 + LINE
%define LINE_ENTRY 0x10 + 2 * LINE
%define UART_ENTRY 0x10 + 2 * 4

; behind "name", label: one interrupt, taken at the label or a little later. Where a processor looks for
; interrupts only now and then (QEMU at a jump), the label is followed by one.
%macro behind 2
    mov rax, [irq_rip]
    sub rax, A(%2)
    cmp rax, 8
    setb al
    movzx eax, al
    check32 %1, eax, 1
  %strcat %%name %1, ".once"
    check32 %%name, [irq_n], 1
%endmacro
; The place for the interrupt, behind the instruction.
%macro landing 0
    nop
    jmp %%next
%%next:
    nop
    cli
%endmacro

main:
    need_testdev "once"
    call apic_enable
    call pic_init
    set_hook 0x45, irq_hook
    set_hook 0x54, uart_hook
    set_hook 0x60, irq_hook
    set_hook 0xe0, irq_hook
    ioapic_write LINE_ENTRY + 1, 0
    ioapic_write UART_ENTRY + 1, 0
    call ports
    call pic
    call mmio
    call local_apic
    call uart
    end_only
    jmp finish

; An OUT that raises an edge.
ports:
    ioapic_write LINE_ENTRY, 0x60
    call log_clear
    mov dx, LINE_PORT
    mov al, 1
    sti
    nop
    out dx, al
.out:
    landing
    behind "out.edge", .out
    line LINE, 0
    call log_clear
    mov dx, LINE_PORT
    mov al, 1
    sti
    out dx, al                  ; in STI's shadow
.shadow:
    landing
    behind "out.behind_sti", .shadow
    line LINE, 0
    call log_clear
    mov dx, LINE_PORT
    mov rsi, A(levels)
    sti
    nop
    outsb
.outsb:
    landing
    behind "outsb.edge", .outsb
    line LINE, 0
    ; Each iteration is an instruction of its own: three edges, three interrupts.
    call log_clear
    mov dx, LINE_PORT
    mov rsi, A(levels)
    mov ecx, levels_end - levels
    sti
    nop
    rep outsb
    landing
    check32 "rep_outsb.an_interrupt_an_edge", [irq_n], 3
    check "rep_outsb.all_bytes", rsi, A(levels_end)
    ret

; The same through the PIC.
pic:
    ioapic_write LINE_ENTRY, 0x10000
    call pic_init               ; forgets the edges so far
    apic_write APIC_LINT0, 0x700
    mov byte [pic_eoi], 1
    mov byte [apic_eoi], 0
    in al, 0x21
    and al, ~(1 << LINE)
    out 0x21, al
    call log_clear
    mov dx, LINE_PORT
    mov al, 1
    sti
    nop
    out dx, al
.out:
    landing
    behind "out.pic", .out
    line LINE, 0
    ; The OUT that unmasks.
    mov al, 0xff
    out 0x21, al
    line LINE, 1
    call log_clear
    mov al, 0xff & ~(1 << LINE)
    sti
    nop
    out 0x21, al
.unmask:
    landing
    behind "out.unmasks", .unmask
    mov al, 0xff
    out 0x21, al
    line LINE, 0
    apic_write APIC_LINT0, 0x10000
    mov byte [pic_eoi], 0
    mov byte [apic_eoi], 1
    ret

; A level is up, and a store to the I/O APIC's entry unmasks it. The hook lowers it.
%macro unmasking 2+             ; name, instruction: rbx, rdi the data register, rsi the value's address
    ioapic_write LINE_ENTRY, 0x18060
    line LINE, 1
    call log_clear
    mov byte [abs IOAPIC], LINE_ENTRY
    mov rbx, IOAPIC + 0x10
    mov rdi, rbx
    mov rsi, A(unmasked)
    mov eax, 0x8060
    sti
    nop
    %2
%%behind:
    landing
    behind %1, %%behind
    ioapic_read LINE_ENTRY
  %strcat %%name %1, ".value"
    checkm %%name, eax, 0x187ff, 0x8060
    line LINE, 0
%endmacro

mmio:
    mov byte [lower_line], LINE
    unmasking "mmio.mov", mov [rbx], eax
    unmasking "mmio.xchg", xchg [rbx], eax
    unmasking "mmio.and", and dword [rbx], 0xfffeffff
    unmasking "mmio.lock_btr", lock btr dword [rbx], 16
    unmasking "mmio.stosd", stosd
    unmasking "mmio.movsd", movsd
    mov byte [lower_line], 0
    ioapic_write LINE_ENTRY, 0x10000
    ret

local_apic:
    call log_clear
    apic_write APIC_ICR2, 0
    mov eax, 0x40000 + 0xe0
    sti
    nop
    mov [abs APIC + APIC_ICR], eax
.icr:
    landing
    behind "apic.icr", .icr
    ; Lowering the task priority lets it in.
    apic_write APIC_TPR, 0xf0
    apic_write APIC_ICR, 0x40000 + 0xe0
    call log_clear
    xor eax, eax
    sti
    nop
    mov [abs APIC + APIC_TPR], eax
.tpr:
    landing
    behind "apic.tpr", .tpr
    apic_write APIC_TPR, 0xf0
    apic_write APIC_ICR, 0x40000 + 0xe0
    call log_clear
    mov rbx, APIC + APIC_TPR
    sti
    nop
    and dword [rbx], 0
.tpr_and:
    landing
    behind "apic.tpr_and", .tpr_and
    ret

; Every byte that is sent empties the transmitter again: an interrupt each, and one for enabling it.
uart:
    call log_clear
    ioapic_write UART_ENTRY, 0x54
    mov dx, 0x3fc
    mov al, 0x0b
    out dx, al
    mov dx, 0x3f9
    mov al, 2
    sti
    out dx, al
    wait_for irq_n, 1000000, 1
    mov rsi, A(text)
    mov ebx, 1
    mov dx, 0x3f8
.next:
    outsb
    inc ebx
    wait_for irq_n, 1000000, ebx
    cmp rsi, A(text_end)
    jb .next
    mov ecx, 10000
.settle:
    loop .settle
    cli
    mov dx, 0x3f9
    xor eax, eax
    out dx, al
    ioapic_write UART_ENTRY, 0x10000
    check32 "uart.an_interrupt_a_byte", [irq_n], 1 + text_end - text
    ret

uart_hook:
    mov dx, 0x3fa
    in al, dx
    jmp irq_hook

levels: db 1, 0, 1, 0, 1, 0
levels_end:
text: db "# each byte once", 10
text_end:
align 4
unmasked: dd 0x8060
    end_image
