// Inside of Images: shared by images.cpp and a save. Internal to snapshot.
#pragma once

#include <optional>

#include "snapshot/digest_tree.hpp"
#include "snapshot/images.hpp"
#include "snapshot/load.hpp"

namespace nestor::snapshot {

/// Where all images of a machine lie. The lease keeps them there, whatever becomes of the tag.
struct ImageHome {
    std::string store; ///< store_identity()
    std::string tag;   ///< for errors
    std::shared_ptr<const Packs> packs;
    std::shared_ptr<const Lease> lease;
    std::vector<Location> roots;
};

struct Images::Impl {
    struct Image {
        ImageEntry entry;
        std::shared_ptr<const ImageBytes> bytes; ///< null: at home only
        std::optional<RegionTree> tree;          ///< of bytes; entry.root is its root
        bool digested = false;                   ///< entry.root is known
    };
    std::vector<Image> images;
    std::optional<ImageHome> home;

    /// Gives an image that has bytes its tree, with everything dirty where it had none.
    static void make_tree(Image& image);
};

} // namespace nestor::snapshot
