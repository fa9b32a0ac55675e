; Self-modifying code: the very next instruction, later ones, across pages, through another linear address, by
; every kind of store, by changed mappings. SDM 3A 9.1.3; where the SDM asks for a jump or a serialising
; instruction (other linear address, changed mapping) there is one.
%include "common.inc"
%include "window.inc"      ; its pages 0..3 map DATA, 8..11 map the same again

%macro map 3                    ; index, physical page index, flags
    mov qword [abs T_PT + (%1) * 8], DATA + (%2) * 0x1000 + (%3)
    mov rax, TVA + (%1) * 0x1000
    invlpg [rax]
%endmacro

main:
    map_window
%assign i 0
%rep 4
    map i, i, 3
    map i + 8, i, 3
%assign i i + 1
%endrep
    call same_address
    call kinds_of_store
    call loops
    call pages
    call aliases
    jmp finish

same_address:
    xor eax, eax
    mov byte [.next + 1], 0x42
.next:
    mov al, 0x11
    movzx eax, al
    check "next.immediate", rax, 0x42
    mov word [.next2], 0x9090   ; INC EDX goes away
    xor edx, edx
    mov byte [.next2b + 1], 0xca    ; INC EDX (ff c2) becomes DEC EDX (ff ca)
.next2:
    inc edx
.next2b:
    inc edx
    check32 "next.opcode", edx, -1
    ; one NOP away, two, a whole block away
    mov byte [.far1 + 1], 7
    nop
.far1:
    mov bl, 1
    mov byte [.far2 + 1], 8
    times 40 nop
.far2:
    mov bh, 1
    movzx eax, bx
    check32 "later.immediates", eax, 0x0807
    ; nops become one long instruction
    mov dword [.sled], 0x000009b8   ; b8 09 00 00 00: MOV EAX, 9
    mov byte [.sled + 4], 0
    xor eax, eax
.sled:
    times 5 nop
    check32 "merge.nops_into_mov", eax, 9
    ; one long instruction becomes nops and INC
    mov eax, 1
    mov dword [.split], 0x90909090
    mov dword [.split + 3], 0xc0ff9090
    mov word [.split + 7], 0x9090
    mov byte [.split + 9], 0x90
.split:
    db 0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8   ; a MOV of ten bytes
    check32 "split.into_nops_and_inc", eax, 2
    ; a jump's target
    mov byte [.jump + 1], .there - .jump - 2
.jump:
    jmp short .here
.here:
    mov eax, 1
    jmp .joined
.there:
    mov eax, 2
.joined:
    check32 "jump.target", eax, 2
    ; INT3 put in and taken out, as a debugger does
    mov byte [.bp], 0xcc
    try
    call .bp
    endtry_fault "int3.put_in", V_BP, 0, A(.bp) + 1
    mov byte [.bp], 0x90
    try
    call .bp
    endtry_ok "int3.taken_out"
    ret
.bp:
    nop
    ret

; Each store writes 0x55 into the immediate of the instruction behind it.
%macro store_check 2+           ; name, store to [.i]
    %push store
    jmp %$run
    align 16
    times 15 nop
%$run:
    lea rdi, [%$i + 1]
    mov eax, 0x55
    %2
%$i:
    mov ecx, 0x44444444
    check32 %1, ecx, 0x00000055
    mov dword [%$i + 1], 0x44444444
    %pop
%endmacro
kinds_of_store:
    mov [saved_sp], rsp
    store_check "store.mov", mov [rdi], eax
    store_check "store.stosd", stosd
    xor edx, edx
    store_check "store.xchg", xchg [rdi], eax
    store_check "store.xor", xor dword [rdi], 0x44444411
    store_check "store.movnti", movnti [rdi], eax
    movd xmm0, [fifty_five]
    store_check "store.movss", movss [rdi], xmm0
    store_check "store.movd", movd [rdi], xmm0
    mov esi, A(fifty_five)
    store_check "store.movsd", movsd
    mov esi, A(fifty_five)
    ; REP over the instruction behind it
    lea rdi, [.rep_target]
    mov ecx, 6
    mov al, 0x90
    rep stosb
.rep_target:
    jmp .rep_wrong
    times 4 nop
    check "store.rep_stosb", rcx, 0
    jmp .push
.rep_wrong:
    check "store.rep_stosb", 1, 0
.push:
    ; a push whose stack is the code: the eight bytes behind
    mov rax, 0x00000055b9909090
    lea rsp, [.pushed + 8]
    push rax
.pushed:
    mov ecx, 0x11               ; becomes three NOPs and MOV ECX, 0x55
    times 3 nop
    mov rsp, [saved_sp]
    check32 "store.push", ecx, 0x55
    lea rdi, [.cas + 1]
    mov eax, 0x11111111
    mov ecx, 0x55
    lock cmpxchg [rdi], ecx
.cas:
    mov edx, 0x11111111
    check32 "store.cmpxchg", edx, 0x55
    mov eax, 0x44
    lea rdi, [.xadd + 1]
    lock xadd [rdi], eax
.xadd:
    mov edx, 0x11
    check32 "store.xadd", edx, 0x55
    ret
align 8
saved_sp: dq 0
fifty_five: dd 0x55, 0

loops:
    ; an immediate inside the running loop changes each turn
    xor ebx, ebx
    mov ecx, 1000
.loop:
    mov [.imm + 2], ecx
.imm:
    add ebx, 0x7fffffff
    dec ecx
    jnz .loop
    check32 "loop.sum", ebx, 500500
    ; the loop's own closing jump goes away
    mov ecx, 100
    xor ebx, ebx
.loop2:
    inc ebx
    cmp ebx, 10
    jne .go_on
    mov word [.closing], 0x9090
.go_on:
    dec ecx
.closing:
    jnz .loop2
    check32 "loop.closing_jump", ebx, 10
    ; data in the page of code: no harm
    mov ecx, 20000
.data:
    inc dword [.counter]
    dec ecx
    jnz .data
    check32 "loop.data_next_to_code", [.counter], 20000
    ; called code that changes between calls, 300 times
    xor esi, esi
    xor edi, edi
.calls:
    mov [.function + 1], esi
    call .function
    cmp eax, esi
    je .same
    inc edi
.same:
    inc esi
    cmp esi, 300
    jne .calls
    check32 "loop.called_code", edi, 0
    ret
.counter: dd 0
.function:
    mov eax, 0
    ret

pages:
    ; a store that crosses into the page of code
    mov rdi, TVA + 0x1000
    mov dword [rdi], 0x000001b8     ; MOV EAX, 1; RET
    mov word [rdi + 4], 0xc300
    call rdi
    check32 "pages.before", eax, 1
    mov rdx, 0x000005b800000000
    mov [rdi - 4], rdx
    call rdi
    check32 "pages.crossing_store", eax, 5
    ; an instruction across two pages, its second half changes
    lea rsi, [rdi - 2]
    mov dword [rsi], 0x000001b8
    mov word [rsi + 4], 0xc300
    call rsi
    check32 "pages.split_before", eax, 1
    mov byte [rdi], 3           ; third byte of the instruction
    call rsi
    check32 "pages.split_second_half", eax, 0x301
    mov byte [rsi + 1], 2
    call rsi
    check32 "pages.split_first_half", eax, 0x302
    ; falling from one page into the next, which changes
    mov word [rdi - 2], 0x9090
    mov dword [rdi], 0x000007b8
    mov word [rdi + 4], 0xc300
    call rsi
    check32 "pages.fall_through", eax, 7
    mov byte [rdi + 1], 8
    call rsi
    check32 "pages.fall_through_changed", eax, 8
    ; code that overwrites the next page and falls into it
    lea rsi, [rdi - 7]
    mov dword [rsi], 0x090147c6     ; MOV BYTE [RDI+1], 9
    mov dword [rsi + 3], 0x90909009
    call rsi
    check32 "pages.overwrites_next_page", eax, 9
    ret

%macro code_at 2                ; address, value returned
    mov rax, %1
    mov byte [rax], 0xb8
    mov dword [rax + 1], %2
    mov byte [rax + 5], 0xc3
%endmacro
aliases:
    mov rsi, TVA + 0x2000
    mov rdi, TVA + 0xa000
    code_at rsi, 1
    call rsi
    check32 "alias.before", eax, 1
    mov dword [rdi + 1], 2
    xor eax, eax
    cpuid
    mov rsi, TVA + 0x2000
    mov rdi, TVA + 0xa000
    call rsi
    check32 "alias.written_elsewhere", eax, 2
    mov dword [abs DATA + 0x2001], 3
    jmp .serial
.serial:
    cpuid
    mov rsi, TVA + 0x2000
    mov rdi, TVA + 0xa000
    call rdi
    check32 "alias.by_identity_map", eax, 3
    call rsi
    check32 "alias.both", eax, 3
    ; another page behind the address
    code_at DATA + 0x3000, 30
    map 2, 3, 3
    call rsi
    check32 "mapping.other_page", eax, 30
    map 2, 2, 3
    call rsi
    check32 "mapping.back", eax, 3
    ; through a changed page directory entry
    mov edi, 0x413000
    mov ecx, 512
    xor eax, eax
    rep stosq
    mov qword [abs 0x413000 + 2 * 8], DATA + 0x3003
    mov qword [abs 0x411000], 0x413007
    mov rax, cr3
    mov cr3, rax
    call rsi
    check32 "mapping.other_table", eax, 30
    mov qword [abs 0x411000], 0x412007
    mov rax, cr3
    mov cr3, rax
    call rsi
    check32 "mapping.table_back", eax, 3
    ; execute disable comes and goes
    mov rcx, 0x8000000000000000 + DATA + 0x2003
    mov [abs T_PT + 16], rcx
    invlpg [rsi]
    try
    call rsi
    endtry_fault "mapping.nx", V_PF, 0x11, rsi, rsi
    map 2, 2, 3
    try
    call rsi
    endtry_ok "mapping.nx_gone"
    ; code and the page table entry that maps it, in one page: walking sets A in the table
    mov qword [abs 0x411000 + 8], 0x600007  ; the directory's next 2 MiB: table in DATA
    mov rdi, DATA
    mov ecx, 512
    xor eax, eax
    rep stosq
    mov qword [abs DATA + 8], 0x600003      ; page 1 of it is the table itself
    mov rsi, TVA + 0x201800
    code_at DATA + 0x800, 44
    mov rax, cr3
    mov cr3, rax
    call rsi
    check32 "table.code_in_it", eax, 44
    mov qword [abs DATA + 8], DATA + 0x3003
    code_at DATA + 0x3800, 45
    invlpg [rsi]
    call rsi
    check32 "table.remaps_itself", eax, 45
    ret
    end_image
