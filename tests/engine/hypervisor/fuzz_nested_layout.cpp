// Any bytes as nested state in Linux's layout: refused or accepted, and what is accepted is written
// and read back as it was.
//
// Input: byte 0 what the vCPU is (in SMM, VMX, eVMCS) and whether the bytes are an image or edits
// of a valid one: offset and value, three bytes each; one or two bytes left over cut it short.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "engine/hypervisor/nested_layout.hpp"
#include "src/base/check.hpp"
#include "tests/engine/cpu/entry_fixture.hpp"

namespace {

using namespace nestor;

std::vector<u8> valid_image(const cpu::Entry& entry) {
    hv::NestedImage image;
    image.vmxon_pointer = 0x1000;
    image.vmcs12_pointer = 0x2000;
    image.guest_mode = true;
    image.vmcs12 = entry.v;
    image.shadow_vmcs12 = entry.v;
    std::vector<u8> bytes(hv::nested_image_size(image));
    CHECK(hv::export_nested(image, bytes));
    return bytes;
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < 1) {
        return 0;
    }
    const u8 what = data[0];
    ++data;
    --size;
    static const cpu::Entry entry = cpu::valid_entry(cpu::ValidEntry::everything);
    static const std::vector<u8> valid = valid_image(entry);
    std::vector<u8> bytes(data, data + size);
    if ((what & 1) != 0) {
        bytes = valid;
        for (; size >= 3; data += 3, size -= 3) {
            u16 offset;
            std::memcpy(&offset, data, sizeof offset);
            bytes[offset % bytes.size()] = data[2];
        }
        bytes.erase(bytes.end() - static_cast<std::ptrdiff_t>(size * 1000), bytes.end());
    }
    hv::NestedTarget target{.entry = entry.c};
    target.entry.in_smm = (what & 2) != 0;
    target.vmx_allowed = (what & 4) == 0;
    target.evmcs_enabled = (what & 8) != 0;
    const auto image = hv::import_nested(bytes, target);
    if (!image) {
        CHECK(image.error().error != 0 && !image.error().text.empty());
        return 0;
    }
    std::vector<u8> again(hv::nested_image_size(*image));
    CHECK(hv::export_nested(*image, again));
    const auto back = hv::import_nested(again, target);
    CHECK(back.has_value() && *back == *image);
    return 0;
}
