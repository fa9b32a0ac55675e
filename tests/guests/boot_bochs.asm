; Boot sector that starts a guest program under Bochs, which knows no multiboot: the image follows it on the
; disk, is copied to 0x100000 and entered at its ELF entry as a multiboot loader would.
bits 16
org 0x7c00
    cli
    xor ax, ax
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov sp, 0x7c00
    in al, 0x92
    or al, 2
    out 0x92, al
    lgdt [gdtr]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    mov bx, 0x10
    mov fs, bx                  ; big real mode: fs reaches 4 GiB
    and al, 0xfe
    mov cr0, eax
    sti
    mov dword [target], 0x100000
next:
    mov si, packet
    mov ah, 0x42
    mov dl, 0x80
    int 0x13
    jc failed
    xor ax, ax
    mov fs, ax
    cli
    mov eax, cr0
    or al, 1
    mov cr0, eax
    mov bx, 0x10
    mov fs, bx
    and al, 0xfe
    mov cr0, eax
    sti
    mov esi, 0x10000
    mov edi, [target]
    mov cx, 64 * 512 / 4
copy:
    mov eax, [fs:esi]
    mov [fs:edi], eax
    add esi, 4
    add edi, 4
    a16 loop copy
    mov [target], edi
    add dword [lba], 64
    dec word [chunks]
    jnz next
    cli
    mov eax, cr0
    or al, 1
    mov cr0, eax
    jmp 0x08:protected
failed:
    hlt
    jmp failed
bits 32
protected:
    mov ax, 0x10
    mov ds, ax
    mov es, ax
    mov fs, ax
    mov gs, ax
    mov ss, ax
    mov eax, 0x2badb002
    xor ebx, ebx
    jmp [0x100018]
align 8
gdt: dq 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdtr: dw 23
    dd gdt
packet: db 16, 0
    dw 64, 0, 0x1000
lba: dd 1, 0
target: dd 0
chunks: dw CHUNKS
    times 510 - ($ - $$) db 0
    dw 0xaa55
