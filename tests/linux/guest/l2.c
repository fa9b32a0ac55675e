// Runs a guest of its own through /dev/kvm, as an L1's userspace does: first in real mode, then in
// 64-bit mode with page tables, interrupts and memory that is only mapped when it is touched.
// Prints one line for each part and "l2 result right" at the end; any surprise is a message and
// status 1. `l2 N` lets it compute N million rounds besides, so that L2 is active for most of a
// machine's life.
#include "kvm_machine.h"

enum {
    ram_size = 4 << 20,
    code_at = 0x1000,
    tables_at = 0x10000,
    idt_at = 0x8000,
    gdt_at = 0x9000
};

// Real mode: adds 1..AL to BX, writes it to port 0x10, halts.
static const uint8_t real_mode[] = {
    0xb8, 0x64, 0x00, // mov ax, 100
    0x31, 0xdb,       // xor bx, bx
    0x01, 0xc3,       // l: add bx, ax
    0x48,             // dec ax
    0x75, 0xfb,       // jnz l
    0x89, 0xd8,       // mov ax, bx
    0xe7, 0x10,       // out 0x10, ax
    0xf4,             // hlt
};

// 64-bit mode: walks 2 MiB of untouched memory (EPT faults), then takes interrupts until R12 is 5.
static const uint8_t long_mode[] = {
    0x48, 0xc7, 0xc7, 0x00, 0x00, 0x20, 0x00, // mov rdi, 0x200000
    0x31, 0xc0,                               // xor eax, eax
    0x48, 0x01, 0x07,                         // l: add [rdi], rax
    0x48, 0x03, 0x07,                         // add rax, [rdi]
    0x48, 0xff, 0xc0,                         // inc rax
    0x48, 0x81, 0xc7, 0x00, 0x10, 0x00, 0x00, // add rdi, 0x1000
    0x48, 0x81, 0xff, 0x00, 0x80, 0x20, 0x00, // cmp rdi, 0x208000
    0x75, 0xe7,                               // jne l
    0x0f, 0xa2,                               // cpuid
    0x45, 0x31, 0xe4,                         // xor r12d, r12d
    0xfb,                                     // sti
    0xe6, 0x20,                               // w: out 0x20, al: asks for an interrupt
    0x41, 0x83, 0xfc, 0x05,                   // cmp r12d, 5
    0x75, 0xf8,                               // jne w
    0xfa,                                     // cli
    0x44, 0x89, 0xe0,                         // mov eax, r12d
    0xe7, 0x11,                               // out 0x11, eax
    0xf4,                                     // hlt
};
// 64-bit mode: a linear congruential generator, as often as the word at 2 says.
static const uint8_t rounds_code[] = {
    0x48, 0xb9, 0,    0,    0,    0,    0, 0, 0, 0, // mov rcx, rounds
    0xb8, 0x01, 0x00, 0x00, 0x00,                   // mov eax, 1
    0x69, 0xc0, 0x0d, 0x66, 0x19, 0x00,             // l: imul eax, eax, 1664525
    0x05, 0x5f, 0xf3, 0x6e, 0x3c,                   // add eax, 1013904223
    0x48, 0xff, 0xc9,                               // dec rcx
    0x75, 0xf0,                                     // jnz l
    0xe7, 0x12,                                     // out 0x12, eax
    0xf4,                                           // hlt
};
// The handler of vector 0x40.
static const uint8_t handler[] = {0x41, 0xff, 0xc4, 0x48, 0xcf}; // inc r12d; iretq

static uint64_t entry64(uint64_t at) { return at | 3; }

static void put64(uint64_t at, uint64_t value) { memcpy(ram + at, &value, 8); }

// Identity map of 4 MiB with 2 MiB pages, one gate, flat descriptors.
static void set_long_mode(struct kvm_sregs* s) {
    put64(tables_at, entry64(tables_at + 0x1000));
    put64(tables_at + 0x1000, entry64(tables_at + 0x2000));
    for (uint64_t i = 0; i < 2; ++i)
        put64(tables_at + 0x2000 + i * 8, i << 21 | 0x83);
    const uint64_t handler_at = code_at + 0x800;
    memcpy(ram + handler_at, handler, sizeof handler);
    put64(gdt_at + 8, 0x00af9b000000ffff);
    put64(gdt_at + 16, 0x00cf93000000ffff);
    put64(idt_at + 0x40 * 16, (handler_at & 0xffff) | 8 << 16 | 0x8e00ull << 32);
    put64(idt_at + 0x40 * 16 + 8, 0);
    const struct kvm_segment code = {
        .limit = ~0u, .selector = 8, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1};
    const struct kvm_segment data = {
        .limit = ~0u, .selector = 16, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1};
    s->cs = code;
    s->ds = s->es = s->fs = s->gs = s->ss = data;
    s->gdt.base = gdt_at;
    s->gdt.limit = 23;
    s->idt.base = idt_at;
    s->idt.limit = 0xfff;
    s->cr3 = tables_at;
    s->cr4 = 1 << 5;
    s->cr0 = 0x80000033;
    s->efer = 0x500;
}

static unsigned exits;

// Runs until the guest writes `port`; interrupts are injected where it asks for them.
static uint32_t run_to(uint16_t port) {
    uint32_t value = ~0u;
    for (;;) {
        must(ioctl(vcpu, KVM_RUN, 0), "KVM_RUN");
        ++exits;
        if (run->exit_reason == KVM_EXIT_HLT)
            return value;
        if (run->exit_reason == KVM_EXIT_IRQ_WINDOW_OPEN) {
            struct kvm_interrupt irq = {.irq = 0x40};
            must(ioctl(vcpu, KVM_INTERRUPT, &irq), "KVM_INTERRUPT");
            run->request_interrupt_window = 0;
            continue;
        }
        if (run->exit_reason != KVM_EXIT_IO || run->io.direction != KVM_EXIT_IO_OUT) {
            struct kvm_regs regs;
            ioctl(vcpu, KVM_GET_REGS, &regs);
            errx(1, "exit %u (%#llx) at rip %#llx", run->exit_reason,
                 (unsigned long long)run->hw.hardware_exit_reason, regs.rip);
        }
        if (run->io.port == port)
            memcpy(&value, (uint8_t*)run + run->io.data_offset, run->io.size);
        if (run->io.port == port && run->io.size == 2)
            value &= 0xffff;
        if (run->io.port == 0x20)
            run->request_interrupt_window = 1;
    }
}

static void set_up(const uint8_t* code, size_t size, int mode64) {
    memcpy(ram + code_at, code, size);
    struct kvm_sregs s;
    must(ioctl(vcpu, KVM_GET_SREGS, &s), "KVM_GET_SREGS");
    if (mode64) {
        set_long_mode(&s);
    } else {
        s.cs.base = 0;
        s.cs.selector = 0;
    }
    must(ioctl(vcpu, KVM_SET_SREGS, &s), "KVM_SET_SREGS");
    struct kvm_regs regs = {.rip = code_at, .rsp = 0x7000, .rflags = 2};
    must(ioctl(vcpu, KVM_SET_REGS, &regs), "KVM_SET_REGS");
}

// The generator's value after so many rounds from 1, by squaring the step.
static uint32_t after_rounds(uint64_t rounds) {
    uint32_t factor = 1, sum = 0, step = 1664525, add = 1013904223;
    for (; rounds != 0; rounds >>= 1) {
        if (rounds & 1) {
            factor *= step;
            sum = sum * step + add;
        }
        add *= step + 1;
        step *= step;
    }
    return factor + sum;
}

static int compute(uint64_t rounds) {
    set_up(rounds_code, sizeof rounds_code, 1);
    put64(code_at + 2, rounds);
    const uint32_t got = run_to(0x12);
    printf("l2 rounds %u\n", got);
    return got == after_rounds(rounds);
}

int main(int argc, char** argv) {
    create_machine(ram_size, 0);
    set_up(real_mode, sizeof real_mode, 0);
    const uint32_t sum = run_to(0x10);
    printf("l2 real mode %u\n", sum);
    set_up(long_mode, sizeof long_mode, 1);
    const uint32_t interrupts = run_to(0x11);
    printf("l2 interrupts %u\n", interrupts);
    uint64_t memory = 0;
    for (unsigned i = 0; i < 8; ++i) {
        uint64_t word;
        memcpy(&word, ram + 0x200000 + i * 0x1000, 8);
        memory = memory * 31 + word;
    }
    printf("l2 memory %llu\n", (unsigned long long)memory);
    const uint64_t millions = argc > 1 ? strtoull(argv[1], NULL, 10) : 0;
    const int computed = millions == 0 || compute(millions * 1000000);
    const int right = sum == 5050 && interrupts == 5 && computed;
    printf("l2 result %s\n", right ? "right" : "wrong");
    return right ? 0 : 1;
}
