; Every VMCS field of the silicon's table (engine/arch/vmcs_field.def): what VMWRITE stores VMREAD gives back, in
; L1's own VMCS, over VMCLEAR and VMPTRLD, and in L2 through VMCS shadowing. All encodings are tried, so that
; nothing exists besides. SDM 3C 25.10, 25.11.2, SDM 3D appendix B.
%include "common.inc"
%include "irq.inc"
%include "vmx.inc"

%define ENCODINGS 1024          ; width, type and index: those of full access

align 8
exist: dd 0                     ; fields that could be written
wrong: dd 0                     ; that read back as something else

main:
    enter_vmx
    call write_all
    check32 "fields of L1's VMCS", [exist], FIELDS
    call read_all
    check32 "they read back", [wrong], 0
    check32 "and no others are there", [exist], FIELDS
    vmptr vmclear, VMCS_A
    vmptr vmptrld, VMCS_B
    vmptr vmptrld, VMCS_A
    call read_all
    check32 "from memory too", [wrong], 0

    ; L2 writes and reads a shadow VMCS; L1 finds the values there.
    vmptr vmclear, VMCS_B
    vmptr vmptrld, VMCS_B
    call vmcs_fill
    mov eax, [abs VMXON_REGION]
    or eax, 1 << 31
    mov [abs SHADOW_VMCS], eax
    vmptr vmclear, SHADOW_VMCS
    vmw LINK_POINTER, SHADOW_VMCS
    vmw F_VMREAD_BITMAP, VMREAD_BITMAP
    vmw F_VMWRITE_BITMAP, VMWRITE_BITMAP
    set_proc2(PROC2_SHADOW)
    l2_at l2_write
    l2_expect "L2 wrote a shadow VMCS", 18
    check32 "fields of the shadow VMCS", [exist], FIELDS
    l2_at l2_read
    l2_expect "L2 read it", 18
    check32 "L2 read what it wrote", [wrong], 0
    vmptr vmclear, VMCS_B
    vmptr vmptrld, SHADOW_VMCS
    call read_all
    check32 "L1 reads what L2 wrote", [wrong], 0
    check32 "all of it", [exist], FIELDS
    vmptr vmclear, SHADOW_VMCS

    ; By their bitmaps, VMREAD and VMWRITE of each exit.
    vmptr vmptrld, VMCS_B
    mov byte [launched], 0
    mov edi, VMREAD_BITMAP
    mov ecx, 0x2000 / 8         ; both
    mov rax, -1
    rep stosq
    xor r14d, r14d
    xor r15d, r15d
.next:
    mov ecx, r14d
    call encoding
    mov [g_regs + 8], rcx
    l2_at l2_one
    call l2_run
    cmp dword [x_reason], 23
    jne .bad
    call skip_instruction
    call l2_run
    cmp dword [x_reason], 25
    je .good
.bad:
    inc r15d
.good:
    inc r14d
    cmp r14d, ENCODINGS
    jne .next
    check32 "each exits by its bitmaps", r15d, 0
    vmxoff
    jmp finish

; ecx: encoding number ecx of all.
encoding:
    mov eax, ecx
    mov edx, ecx
    and ecx, 63                 ; index
    shl ecx, 1
    shr eax, 6
    and eax, 3                  ; type
    shl eax, 10
    or ecx, eax
    shr edx, 8                  ; width
    shl edx, 13
    or ecx, edx
    ret
; rax: what goes into the field ecx, with zeros where access rights have reserved bits; rdx: as it comes back.
value:
    mov eax, ecx
    shl rax, 40
    mov edx, ecx
    shr edx, 8
    xor edx, ecx
    movzx edx, dl
    or rax, rdx
    or rax, 0x1b000
    mov edx, ecx
    shr edx, 13
    cmp edx, 0
    je .bits16
    cmp edx, 2
    mov rdx, rax
    jne .end
    mov edx, eax
.end: ret
.bits16:
    movzx edx, ax
    ret

write_all:
    mov dword [exist], 0
    xor ebx, ebx
.next:
    mov ecx, ebx
    call encoding
    call value
    vmwrite rcx, rax
    jbe .none
    inc dword [exist]
.none:
    inc ebx
    cmp ebx, ENCODINGS
    jne .next
    ret
read_all:
    mov dword [exist], 0
    mov dword [wrong], 0
    xor ebx, ebx
.next:
    mov ecx, ebx
    call encoding
    call value
    vmread rax, rcx
    jbe .none
    inc dword [exist]
    cmp rax, rdx
    je .none
    cmp ecx, X_ERROR            ; what is not there leaves its error number
    je .none
    inc dword [wrong]
.none:
    inc ebx
    cmp ebx, ENCODINGS
    jne .next
    ret

; As many as the table has rows.
rows:
%define VMCS_FIELD(offset, name) db 0
%define VMCS_FIELD_WHEN(offset, name, kind, control) db 0
%include "vmcs_field.inc"
FIELDS equ $ - rows

; --- L2 ---------------------------------------------------------------------------------------------
l2_write:
    call write_all
    vmcall
l2_read:
    call read_all
    vmcall
l2_one:
    vmread rax, rcx
    vmwrite rcx, rax
    end_image
