; Prints, again and again, what port 0xd00, the page at 0xfed50000 and the ACPI tables say of a lamp, the device
; that tests/next_board makes up for a later board revision. It writes to both before it reads, so a device that
; is there answers with what it holds. After three lines it resets the machine, once.
%include "boot_flat.inc"
%define LAMP_PORT 0xd00
%define LAMP_PAGE 0xfed50000
%define ACPI_START 0xe0000
%define ACPI_END 0x100000
%define CMOS_FREE 0x60          ; a byte of CMOS RAM, which the battery keeps: 1 after the reset

main:
    xor ebp, ebp
.next:
    mov esi, A(port_text)
    call puts
    mov edx, LAMP_PORT
    mov al, 0x5a
    out dx, al
    in eax, dx
    call put_hex8
    mov esi, A(memory_text)
    call puts
    mov dword [LAMP_PAGE], 0x12345678
    mov eax, [LAMP_PAGE]
    call put_hex8
    mov esi, A(acpi_text)
    call puts
    call find_lamp
    call put_dec
    mov al, 10
    call putc
    inc ebp
    cmp ebp, 3
    jne .wait
    mov al, CMOS_FREE
    out 0x70, al
    in al, 0x71
    cmp al, 1
    je .wait
    mov al, 1
    out 0x71, al
    mov edx, 0xcf9
    mov al, 6
    out dx, al
.wait:
    mov ecx, 10000
.count:
    dec ecx
    jnz .count
    jmp .next

find_lamp:                      ; eax: how often "LAMP" stands in the ACPI tables
    xor eax, eax
    mov esi, ACPI_START
.look:
    cmp dword [esi], 'LAMP'
    jne .other
    inc eax
.other:
    inc esi
    cmp esi, ACPI_END - 3
    jne .look
    ret

put_hex8:                       ; eax, eight digits
    push ecx
    push ebx
    mov ebx, eax
    mov ecx, 8
.digit:
    rol ebx, 4
    mov eax, ebx
    and eax, 15
    cmp al, 10
    jb .decimal
    add al, 'a' - '0' - 10
.decimal:
    add al, '0'
    call putc
    dec ecx
    jnz .digit
    pop ebx
    pop ecx
    ret

port_text: db "port ", 0
memory_text: db " memory ", 0
acpi_text: db " acpi ", 0
    end_image
