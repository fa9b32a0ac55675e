// The entry stub; see host_entry.hpp. Position independent: all of HostEntry is addressed by RIP.
#include "tests/engine/cpu/oracle/host_entry.hpp"

#include <cstddef>

namespace nestor::test {

extern "C" {
[[gnu::visibility("hidden")]] HostEntry nestor_oracle_entry;
}

static_assert(offsetof(HostEntry, rflags) == 128 && offsetof(HostEntry, target) == 136);
static_assert(offsetof(HostEntry, far_target) == 144 && offsetof(HostEntry, far_segment) == 148);
static_assert(offsetof(HostEntry, vector) == 150 && offsetof(HostEntry, driver_rsp) == 152);
static_assert(offsetof(HostEntry, landing) == 160 && offsetof(HostEntry, image) == 192);

} // namespace nestor::test

// FNINIT first: AMD's XRSTOR leaves the last instruction's pointers as they were (APM 2 11.4.4.4).
// MOV changes no flags, so POPF may come before it. In compatibility mode DS and ES are looked at,
// which 64-bit code leaves null (SDM 3A 3.4.4).
asm(R"(
    .text
    .macro oracle_save
    push %rbx
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, nestor_oracle_entry + 152(%rip)
    lea 9f(%rip), %rax
    mov %rax, nestor_oracle_entry + 160(%rip)
    cmpw $0, nestor_oracle_entry + 150(%rip)
    je 1f
    fninit
    mov $7, %eax
    xor %edx, %edx
    xrstor64 nestor_oracle_entry + 192(%rip)
1:
    .endm

    .macro oracle_load
    pushq nestor_oracle_entry + 128(%rip)
    popfq
    mov nestor_oracle_entry + 0(%rip), %rax
    mov nestor_oracle_entry + 8(%rip), %rcx
    mov nestor_oracle_entry + 16(%rip), %rdx
    mov nestor_oracle_entry + 24(%rip), %rbx
    mov nestor_oracle_entry + 40(%rip), %rbp
    mov nestor_oracle_entry + 48(%rip), %rsi
    mov nestor_oracle_entry + 56(%rip), %rdi
    mov nestor_oracle_entry + 64(%rip), %r8
    mov nestor_oracle_entry + 72(%rip), %r9
    mov nestor_oracle_entry + 80(%rip), %r10
    mov nestor_oracle_entry + 88(%rip), %r11
    mov nestor_oracle_entry + 96(%rip), %r12
    mov nestor_oracle_entry + 104(%rip), %r13
    mov nestor_oracle_entry + 112(%rip), %r14
    mov nestor_oracle_entry + 120(%rip), %r15
    mov nestor_oracle_entry + 32(%rip), %rsp
    .endm

    .macro oracle_land
9:
    cld
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
    ret
    .endm

    .globl nestor_oracle_enter64
    .hidden nestor_oracle_enter64
    .type nestor_oracle_enter64, @function
nestor_oracle_enter64:
    oracle_save
    oracle_load
    jmp *nestor_oracle_entry + 136(%rip)
    oracle_land
    .size nestor_oracle_enter64, . - nestor_oracle_enter64

    .globl nestor_oracle_enter32
    .hidden nestor_oracle_enter32
    .type nestor_oracle_enter32, @function
nestor_oracle_enter32:
    oracle_save
    mov $0x2b, %eax
    mov %eax, %ds
    mov %eax, %es
    oracle_load
    ljmp *nestor_oracle_entry + 144(%rip)
    oracle_land
    .size nestor_oracle_enter32, . - nestor_oracle_enter32
)");
