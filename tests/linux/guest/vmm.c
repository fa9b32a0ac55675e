// A virtual machine monitor of the least there is, for an L1: runs one of our bare-metal programs
// (tests/guests: multiboot, one segment) under KVM. `vmm IMAGE MIB`: its serial port is standard
// output, what it writes to port 0xf4 is the exit status. The guest has VMX, so that the program
// may be a hypervisor itself.
#include <elf.h>
#include <unistd.h>

#include "kvm_machine.h"

enum {
    serial = 0x3f8,
    line_control = serial + 3, // bit 7: the port at `serial` is the divisor's
    line_status = serial + 5,
    exit_port = 0xf4,
    feature_control = 0x3a
};

static uint32_t load(const char* path, size_t ram_size) {
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    must(file, path);
    Elf32_Ehdr elf;
    Elf32_Phdr segment;
    if (pread(file, &elf, sizeof elf, 0) != sizeof elf || elf.e_ident[EI_CLASS] != ELFCLASS32 ||
        pread(file, &segment, sizeof segment, elf.e_phoff) != sizeof segment ||
        segment.p_paddr + (size_t)segment.p_memsz > ram_size ||
        pread(file, ram + segment.p_paddr, segment.p_filesz, segment.p_offset) !=
            (ssize_t)segment.p_filesz)
        errx(1, "%s is no image", path);
    close(file);
    return elf.e_entry;
}

// All that KVM can give, VMX with it; and what firmware does: lock feature control with VMX on.
static void set_processor(void) {
    enum { most = 100 };
    struct kvm_cpuid2* cpuid = calloc(1, sizeof *cpuid + most * sizeof cpuid->entries[0]);
    cpuid->nent = most;
    must(ioctl(kvm, KVM_GET_SUPPORTED_CPUID, cpuid), "KVM_GET_SUPPORTED_CPUID");
    must(ioctl(vcpu, KVM_SET_CPUID2, cpuid), "KVM_SET_CPUID2");
    free(cpuid);
    struct {
        struct kvm_msrs list;
        struct kvm_msr_entry entry;
    } msrs = {.list.nmsrs = 1, .entry = {.index = feature_control, .data = 5}};
    if (ioctl(vcpu, KVM_SET_MSRS, &msrs) != 1)
        errx(1, "KVM's guests have no VMX");
}

// As multiboot enters a kernel: flat 32-bit protected mode.
static void set_registers(uint32_t entry) {
    struct kvm_sregs s;
    must(ioctl(vcpu, KVM_GET_SREGS, &s), "KVM_GET_SREGS");
    const struct kvm_segment code = {
        .limit = ~0u, .selector = 8, .type = 11, .present = 1, .s = 1, .db = 1, .g = 1};
    const struct kvm_segment data = {
        .limit = ~0u, .selector = 16, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1};
    s.cs = code;
    s.ds = s.es = s.fs = s.gs = s.ss = data;
    s.cr0 = 0x11;
    must(ioctl(vcpu, KVM_SET_SREGS, &s), "KVM_SET_SREGS");
    const struct kvm_regs regs = {.rip = entry, .rax = 0x2badb002, .rflags = 2};
    must(ioctl(vcpu, KVM_SET_REGS, &regs), "KVM_SET_REGS");
}

// A port access. Returns the exit status once the guest has one, else -1.
static int port_access(void) {
    static uint8_t control;
    uint8_t* data = (uint8_t*)run + run->io.data_offset;
    if (run->io.direction == KVM_EXIT_IO_IN) {
        memset(data, run->io.port == line_status ? 0x60 : 0xff, run->io.size * run->io.count);
    } else if (run->io.port == line_control) {
        control = *data;
    } else if (run->io.port == serial && (control & 0x80) == 0) {
        fwrite(data, 1, run->io.size * run->io.count, stdout);
        if (*data == '\n')
            fflush(stdout);
    } else if (run->io.port == exit_port) {
        return *data;
    }
    return -1;
}

int main(int argc, char** argv) {
    if (argc != 3)
        errx(2, "usage: vmm IMAGE MIB");
    const size_t ram_size = strtoul(argv[2], NULL, 10) << 20;
    create_machine(ram_size, 1);
    const uint32_t entry = load(argv[1], ram_size);
    set_processor();
    set_registers(entry);
    for (;;) {
        must(ioctl(vcpu, KVM_RUN, 0), "KVM_RUN");
        if (run->exit_reason != KVM_EXIT_IO) {
            struct kvm_regs regs;
            must(ioctl(vcpu, KVM_GET_REGS, &regs), "KVM_GET_REGS");
            errx(1, "exit %u (%#llx) at rip %#llx", run->exit_reason,
                 (unsigned long long)run->hw.hardware_exit_reason, regs.rip);
        }
        const int status = port_access();
        if (status >= 0)
            return status;
    }
}
