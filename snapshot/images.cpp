// Boot images: their bytes, their digests and how they come back out of a store. Owns: that nothing
// leaves here which was not compared with the digests in the manifest, and that an image is read
// only when somebody asks for its bytes.
//
// Whatever an image was made from is not looked at again: bytes are copied in once and stay.
#include "snapshot/images.hpp"

#include <algorithm>
#include <cerrno>

#include <sys/mman.h>

#include "src/base/bits.hpp"
#include "src/base/fd.hpp"

#include "snapshot/image_set.hpp"

namespace nestor::snapshot {

namespace {

constexpr unsigned image_threads = 2;

/// An image's last page is its bytes and zeros: otherwise it would have another digest than an
/// image of the same bytes.
bool is_padded(ImageBytes& image) {
    const u64 end = image_pages(image.size()) << page_shift;
    return std::all_of(image.data() + image.size(), image.data() + end,
                       [](u8 byte) { return byte == 0; });
}

} // namespace

Result<std::shared_ptr<ImageBytes>> ImageBytes::make(u64 size) {
    u8* data = nullptr;
    if (size != 0) {
        void* const at = ::mmap(nullptr, align_up(size, page_size), PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (at == MAP_FAILED) {
            return fail_errno("getting memory for a boot image", errno);
        }
        data = static_cast<u8*>(at);
    }
    return std::shared_ptr<ImageBytes>(new ImageBytes(data, size));
}

ImageBytes::~ImageBytes() {
    if (data_ != nullptr) {
        ::munmap(data_, align_up(size_, page_size));
    }
}

Result<std::shared_ptr<const ImageBytes>> ImageBytes::read(const std::string& path, u64 limit) {
    std::shared_ptr<ImageBytes> image;
    const auto room = [&](std::size_t size) -> Result<std::span<std::byte>> {
        image = TRY(make(size));
        return std::span(reinterpret_cast<std::byte*>(image->data()), size);
    };
    TRY(read_file(path, limit, room));
    return std::shared_ptr<const ImageBytes>(std::move(image));
}

Images::Images() : impl_(std::make_unique<Impl>()) {}
Images::~Images() = default;
Images::Images(Images&&) noexcept = default;
Images& Images::operator=(Images&&) noexcept = default;

bool Images::empty() const { return impl_->images.empty(); }

Result<Images> Images::of(std::vector<File> files) {
    if (files.size() > max_images) {
        return fail(ErrorCode::usage, "more than " + std::to_string(max_images) + " boot images");
    }
    Images made;
    u64 total = 0;
    for (File& file : files) {
        total += file.bytes->size();
        if ((file.kind == ImageKind::kernel) != made.empty()) {
            return fail(ErrorCode::usage, "boot images are one kernel and then modules");
        }
        if (total > max_image_bytes) {
            return fail(ErrorCode::usage, "boot images of more than 4 GiB together");
        }
        made.impl_->images.push_back({{file.kind,
                                       std::move(file.name),
                                       file.named,
                                       std::move(file.arguments),
                                       file.bytes->size(),
                                       {}},
                                      std::move(file.bytes),
                                      std::nullopt,
                                      false});
    }
    return made;
}

void Images::Impl::make_tree(Image& image) {
    const u64 pages = image_pages(image.entry.size);
    if (pages != 0 && !image.tree) {
        const u8* const bytes = image.bytes->bytes().data();
        image.tree = snapshot::make_tree({Gpa(0), pages << page_shift, bytes});
        image.tree->image = true;
    }
}

Result<std::vector<ImageEntry>> Images::entries() {
    std::vector<ImageEntry> entries;
    for (Impl::Image& image : impl_->images) {
        if (!image.digested) {
            Impl::make_tree(image);
            if (image.tree) {
                TRY(image.tree->update(image_threads));
                image.entry.root = image.tree->root();
            }
            image.digested = true;
        }
        entries.push_back(image.entry);
    }
    return entries;
}

Result<std::vector<Images::File>> Images::load() {
    std::vector<File> files;
    for (std::size_t i = 0; i < impl_->images.size(); ++i) {
        Impl::Image& image = impl_->images[i];
        const ImageEntry& entry = image.entry;
        if (image.bytes == nullptr) {
            const auto bytes = TRY(ImageBytes::make(entry.size), "boot image " + entry.name);
            const ImageHome& home = *impl_->home;
            const MapTargets into{{{image_pages(entry.size), entry.root, home.roots[i], Gfn(0),
                                    entry.name.empty() ? std::to_string(i) : entry.name}},
                                  {bytes->data()},
                                  true};
            TRY(read_maps(*home.packs, home.tag, into, image_threads, {}));
            if (!is_padded(*bytes)) {
                return fail(ErrorCode::corrupt, "snapshot " + home.tag + ": boot image " +
                                                    entry.name + ": it goes on behind its end");
            }
            image.bytes = bytes;
        }
        files.push_back({entry.kind, entry.name, entry.named, entry.arguments, image.bytes});
    }
    return files;
}

Images Snapshot::images() const {
    Images images;
    for (const ImageEntry& entry : manifest().images) {
        images.impl_->images.push_back({entry, nullptr, std::nullopt, true});
    }
    images.impl_->home =
        ImageHome{data_->store, data_->tag, data_->packs, data_->lease, data_->placed.image_roots};
    return images;
}

} // namespace nestor::snapshot
