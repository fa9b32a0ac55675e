// The boot images of a save. Owns: which of them are saved by their bytes, and which are where they
// were: those of a machine that was restored from this store or saved to it before, as long as its
// lease counts. Their pages and nodes go the way of memory's, after those.
#include "snapshot/save.hpp"

namespace nestor::snapshot {

/// Whether all of them lie in this store, where a lease kept them.
bool SaveJob::images_at_home() const {
    const auto& home = request_.images->impl().home;
    return home && home->store == store_identity(layout_) && home->lease != nullptr &&
           home->lease->valid() && index_->complete();
}

/// Adds the trees of what is to be saved to those of memory.
Result<> SaveJob::prepare_images() {
    if (request_.images == nullptr || request_.images->empty()) {
        return {};
    }
    Images::Impl& images = request_.images->impl();
    placed_.manifest.format = format_version;
    placed_.image_roots.resize(images.images.size());
    if (images_at_home()) {
        placed_.image_roots = images.home->roots;
        return {};
    }
    TRY(request_.images->load(), "reading the boot images");
    for (Images::Impl::Image& image : images.images) {
        Images::Impl::make_tree(image);
        if (image.tree) {
            add_tree(*image.tree);
        }
    }
    return {};
}

/// After the nodes of all trees are placed.
Result<> SaveJob::place_images() {
    if (request_.images == nullptr) {
        return {};
    }
    Images::Impl& images = request_.images->impl();
    std::size_t tree = trees_->regions.size();
    for (std::size_t i = 0; i < images.images.size() && tree < all_.size(); ++i) {
        Images::Impl::Image& image = images.images[i];
        if (image.tree) {
            image.entry.root = image.tree->root();
            placed_.image_roots[i] = nodes_[tree].back()[0];
            ++tree;
        }
        image.digested = true;
    }
    placed_.manifest.images = TRY(request_.images->entries());
    return {};
}

/// From here on they are known to lie in this store.
void SaveJob::images_are_home(const std::shared_ptr<const Lease>& lease) {
    if (request_.images == nullptr || request_.images->empty() || lease == nullptr) {
        return;
    }
    Images::Impl& images = request_.images->impl();
    images.home =
        ImageHome{store_identity(layout_), request_.tag, store_.packs, lease, placed_.image_roots};
    for (Images::Impl::Image& image : images.images) {
        image.tree.reset();
    }
}

} // namespace nestor::snapshot
