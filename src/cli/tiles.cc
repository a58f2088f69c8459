// idefics tiles: what the vision tower gets to see of a picture.
#include "image/tiles.h"

#include <fmt/format.h>

#include <filesystem>
#include <memory>

#include "base/files.h"
#include "base/json.h"
#include "base/sha256.h"
#include "cli/pictures.h"
#include "cli/shared_flags.h"
#include "cli/terminal.h"
#include "cli/verbs.h"

namespace idefics::cli {

namespace {

struct Tiles {
  ModelArgument model;
  std::string picture;
  ImageFlags images;
  std::optional<std::string> out;
  bool json = false;
};

// "tile_1_2", as in the prompt's <row_1_col_2>; "global" for the overview, which comes last.
std::string tile_name(const PromptImage& image, int i) {
  if (i >= image.rows * image.cols) return "global";
  return fmt::format("tile_{}_{}", i / image.cols + 1, i % image.cols + 1);
}

std::string hash(std::span<const uint8_t> bytes) { return sha256_hex(std::as_bytes(bytes)); }

void write_tiles(const PromptImage& image, const std::filesystem::path& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) throw Error(ErrorCode::kIo, fmt::format("{}: cannot create: {}", folder.string(), error.message()));
  for (int i = 0; i < image.count; ++i)
    write_file(folder / (tile_name(image, i) + ".png"), encode_png(image.tile(i), image.side, image.side));
}

std::string to_json(const PromptImage& image) {
  json::array tiles;
  for (int i = 0; i < image.count; ++i)
    tiles.emplace_back(json::object{{"name", tile_name(image, i)}, {"sha256", hash(image.tile(i))}});
  const json::object object = {{"width", image.width},
                               {"height", image.height},
                               {"resized", json::array{image.resized_width, image.resized_height}},
                               {"tiled", json::array{image.tiled_width, image.tiled_height}},
                               {"rows", image.rows},
                               {"cols", image.cols},
                               {"count", image.count},
                               {"side", image.side},
                               {"sha256", hash(image.tiles)},
                               {"tiles", std::move(tiles)}};
  return json::serialize(object) + "\n";
}

std::string to_text(const PromptImage& image) {
  std::string out = fmt::format(
      "picture   {} x {}\nresized   {} x {}\ntiled     {} x {}\ngrid      {} rows x {} columns\ntiles     {} of {} x "
      "{}, "
      "the overview included\nsha256    {}\n",
      image.width, image.height, image.resized_width, image.resized_height, image.tiled_width, image.tiled_height,
      image.rows, image.cols, image.count, image.side, image.side, hash(image.tiles));
  for (int i = 0; i < image.count; ++i) out += fmt::format("{:<9} {}\n", tile_name(image, i), hash(image.tile(i)));
  return out;
}

PromptImage cut(const Processor& processor, const Tiles& options) {
  const std::string bytes = read_picture(options.picture);
  try {
    return processor.cut(bytes, options.images.options());
  } catch (const Error& e) {
    throw e.with_context(options.picture);
  }
}

int run(const Tiles& options) {
  options.model.require();
  const PromptImage image = cut(Processor::load(options.model.folder), options);
  if (options.out) write_tiles(image, *options.out);
  print(options.json ? to_json(image) : to_text(image));
  return 0;
}

}  // namespace

void add_tiles(CommandLine& line) {
  Verb& verb = line.add_verb("tiles", "Show how a picture is resized and cut for a model.",
                             "idefics tiles models/tiny-cards card.png --out tiles",
                             "Prints the sizes of the picture on its way, the grid, and the SHA-256 of all tiles' RGB "
                             "bytes together and of each. Tiles are named by row and column from 1; the overview comes "
                             "last.");
  const auto options = std::make_shared<Tiles>();
  options->model.describe(verb);
  verb.argument("IMAGE", "A picture: JPEG, PNG, WebP, TIFF, GIF, BMP; - reads it from standard input",
                options->picture);
  options->images.describe(verb);
  verb.group("Output");
  verb.text("--out", "DIR", "Write the tiles there: tile_ROW_COL.png and global.png", options->out);
  verb.flag("--json", "Print one JSON object", options->json);
  verb.action([options] { return run(*options); });
}

}  // namespace idefics::cli
