#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include <fstream>
#include <iterator>

#include "arrays.h"
#include "binding.h"
#include "idefics/processor.h"

namespace idefics::python {

namespace {

[[noreturn]] void fail(const std::string& problem) { throw Error(ErrorCode::kInvalidValue, problem); }

ContentPart to_part(nb::handle part) {
  if (nb::isinstance<ContentPart>(part)) return nb::cast<ContentPart>(part);
  if (nb::isinstance<nb::str>(part)) return ContentPart::of_text(nb::cast<std::string>(part));
  if (!nb::isinstance<nb::dict>(part)) fail("message: a part is a str, a dict or a ContentPart");
  const auto fields = nb::borrow<nb::dict>(part);
  const auto get = [&](const char* key) {
    if (!fields.contains(key)) fail(std::string("message: a part lacks \"") + key + "\"");
    return nb::object(fields[key]);
  };
  const auto type = nb::cast<std::string>(nb::str(get("type")));
  if (type == "text") return ContentPart::of_text(nb::cast<std::string>(nb::str(get("text"))));
  if (type == "image") {
    ImageOptions options;
    if (fields.contains("options") && !nb::try_cast(fields["options"], options))
      fail("message: the options of an image are ImageOptions");
    return ContentPart::of_image(to_picture(get("image")), options);
  }
  fail("message: a part is of type \"" + type + "\", wanted \"text\" or \"image\"");
}

Message to_message(nb::handle message) {
  if (nb::isinstance<Message>(message)) return nb::cast<Message>(message);
  if (!nb::isinstance<nb::dict>(message)) fail("message: wanted a dict or a Message");
  const auto fields = nb::borrow<nb::dict>(message);
  if (!fields.contains("role") || !fields.contains("content"))
    fail("message: wanted the keys \"role\" and \"content\"");
  Message out{nb::cast<std::string>(nb::str(fields["role"])), {}};
  const nb::object content = fields["content"];
  if (nb::isinstance<nb::str>(content)) {
    out.content.push_back(to_part(content));
  } else {
    for (nb::handle part : content) out.content.push_back(to_part(part));
  }
  return out;
}

}  // namespace

std::string to_picture(nb::handle picture) {
  if (nb::isinstance<nb::bytes>(picture)) {
    const auto bytes = nb::borrow<nb::bytes>(picture);
    return std::string(bytes.c_str(), bytes.size());
  }
  std::filesystem::path path;
  if (!nb::try_cast(picture, path)) fail("image: wanted the bytes of an encoded picture, or the path of a file");
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Error(ErrorCode::kIo, "cannot open " + path.string());
  return std::string(std::istreambuf_iterator<char>(file), {});
}

std::vector<Message> to_messages(nb::handle messages) {
  std::vector<Message> out;
  for (nb::handle message : messages) out.push_back(to_message(message));
  return out;
}

void bind_messages(nb::module_& m) {
  nb::class_<ImageOptions>(m, "ImageOptions", "How pictures are cut; None means as the checkpoint says.")
      .def(
          "__init__",
          [](ImageOptions* self, std::optional<bool> split, std::optional<int> longest_edge,
             std::optional<int> max_tiles) {
            new (self) ImageOptions{split, longest_edge, max_tiles};
          },
          nb::arg("split") = nb::none(), nb::arg("longest_edge") = nb::none(), nb::arg("max_tiles") = nb::none())
      .def_rw("split", &ImageOptions::split, "Cut into tiles and an overview, or encode a single tile.")
      .def_rw("longest_edge", &ImageOptions::longest_edge, "Long side before it is cut, in pixels.")
      .def_rw("max_tiles", &ImageOptions::max_tiles, "Most tiles of a picture, the overview included.");

  nb::class_<ContentPart>(m, "ContentPart", "One part of a message: text, or a picture.")
      .def_static("of_text", &ContentPart::of_text, nb::arg("text"),
                  "Text. It never becomes a control token or a picture's place, whatever it contains.")
      .def_static(
          "of_image",
          [](nb::handle image, const ImageOptions& options) {
            return ContentPart::of_image(to_picture(image), options);
          },
          nb::arg("image"), nb::arg("options") = ImageOptions(),
          "A picture: the bytes of a JPEG, PNG, WebP, TIFF, GIF or BMP file, or its path. What `options` leave open is "
          "as the options of the prompt say.")
      .def_ro("text", &ContentPart::text)
      .def_ro("options", &ContentPart::options)
      .def_prop_ro("image", [](const ContentPart& p) { return nb::bytes(p.image.data(), p.image.size()); });

  nb::class_<Message>(m, "Message", "A role (\"system\", \"user\", \"assistant\") and its parts.")
      .def(
          "__init__",
          [](Message* self, std::string role, nb::handle content) {
            nb::dict fields;
            fields["role"] = role;
            fields["content"] = content;
            new (self) Message(to_message(fields));
          },
          nb::arg("role"), nb::arg("content"))
      .def_rw("role", &Message::role)
      .def_rw("content", &Message::content);

  nb::class_<PromptOptions>(m, "PromptOptions", "How messages become a prompt.")
      .def(
          "__init__",
          [](PromptOptions* self, const ImageOptions& images, bool add_generation_prompt, bool continue_final_message) {
            new (self) PromptOptions{images, add_generation_prompt, continue_final_message};
          },
          nb::arg("images") = ImageOptions(), nb::arg("add_generation_prompt") = true,
          nb::arg("continue_final_message") = false)
      .def_rw("images", &PromptOptions::images)
      .def_rw("add_generation_prompt", &PromptOptions::add_generation_prompt)
      .def_rw("continue_final_message", &PromptOptions::continue_final_message);

  nb::class_<TileSpan>(m, "TileSpan", "The features of a tile go to tokens [first, first + image_seq_len).")
      .def_ro("image", &TileSpan::image)
      .def_ro("tile", &TileSpan::tile)
      .def_ro("first", &TileSpan::first);

  nb::class_<PromptImage>(m, "PromptImage", "A picture cut into square tiles; sizes in pixels.")
      .def_ro("width", &PromptImage::width)
      .def_ro("height", &PromptImage::height)
      .def_ro("rows", &PromptImage::rows)
      .def_ro("cols", &PromptImage::cols)
      .def_ro("count", &PromptImage::count, "Tiles, the overview (last) included.")
      .def_ro("side", &PromptImage::side)
      .def_prop_ro(
          "tiles",
          [](nb::object self) {
            const auto& image = nb::cast<const PromptImage&>(self);
            size_t shape[4] = {static_cast<size_t>(image.count), static_cast<size_t>(image.side),
                               static_cast<size_t>(image.side), 3};
            return nb::cast(nb::ndarray<nb::numpy, const uint8_t>(image.tiles.data(), 4, shape, self));
          },
          "uint8 [count, side, side, 3] RGB, a view.");

  nb::class_<Prompt>(m, "Prompt", "What was made of messages and pictures.")
      .def_ro("text", &Prompt::text, "What was tokenised: the template rendered, placeholders expanded.")
      .def_prop_ro(
          "ids", [](const Prompt& p) { return to_array(std::span<const int32_t>(p.ids)); }, "int32 [tokens].")
      .def_ro("images", &Prompt::images, nb::rv_policy::reference_internal)
      .def_ro("tiles", &Prompt::tiles, "TileSpan of each tile, in the order of the tokens.")
      .def_ro("num_image_tokens", &Prompt::num_image_tokens);

  nb::class_<Processor>(m, "Processor", "The chat template, tokenizer and image processor of a checkpoint folder.")
      .def_static(
          "load", [](const std::filesystem::path& folder) { return Processor::load(folder); }, nb::arg("folder"),
          nb::call_guard<nb::gil_scoped_release>(),
          "Reads the files of a folder. Raises Error (\"bad_model\") naming the file and the key.")
      .def(
          "prompt",
          [](const Processor& self, nb::handle messages, const PromptOptions& options) {
            const std::vector<Message> read = to_messages(messages);
            nb::gil_scoped_release release;
            return self.prompt(read, options);
          },
          nb::arg("messages"), nb::arg("options") = PromptOptions(),
          "Renders the chat template, decodes and cuts the pictures, tokenises. `messages`: Message objects or "
          "dictionaries.\nRaises Error: image_invalid, image_too_large, too_many_images, template_error, prompt_empty.")
      .def(
          "raw_prompt",
          [](const Processor& self, const std::string& text, nb::iterable images, const PromptOptions& options) {
            std::vector<std::string> files;
            for (nb::handle image : images) files.push_back(to_picture(image));
            nb::gil_scoped_release release;
            return self.raw_prompt(text, files, options);
          },
          nb::arg("text"), nb::arg("images") = nb::make_tuple(), nb::arg("options") = PromptOptions(),
          "A prompt without template: `text` is trusted, each \"<image>\" in it is a picture's place.")
      .def(
          "cut",
          [](const Processor& self, nb::handle image, const ImageOptions& options) {
            const std::string bytes = to_picture(image);
            nb::gil_scoped_release release;
            return self.cut(bytes, options);
          },
          nb::arg("image"), nb::arg("options") = ImageOptions(), "Decodes and cuts one picture.")
      .def(
          "pixel_values",
          [](const Processor& self, const PromptImage& image) {
            Tensor out = Tensor::zeros(TensorDType::kF32, {image.count, 3, image.side, image.side});
            const auto size =
                static_cast<size_t>(3) * static_cast<size_t>(image.side) * static_cast<size_t>(image.side);
            for (int i = 0; i < image.count; ++i) {
              self.pixel_values(image.tile(i), image.side,
                                out.as_mutable<float>().subspan(static_cast<size_t>(i) * size, size));
            }
            return to_array(out);
          },
          nb::arg("image"), nb::sig("def pixel_values(self, image: PromptImage) -> numpy.ndarray"),
          "Normalised pixels of all tiles of a picture: float32 [count, 3, side, side].")
      .def(
          "tokenize",
          [](const Processor& self, std::string_view text, bool add_special_tokens, bool untrusted) {
            return self.tokenize(text, add_special_tokens, untrusted);
          },
          nb::arg("text"), nb::arg("add_special_tokens") = false, nb::arg("untrusted") = false,
          "Ids of a text. `untrusted`: control tokens in it are plain text.")
      .def(
          "detokenize",
          [](const Processor& self, const std::vector<int32_t>& ids, bool skip_special_tokens) {
            return self.detokenize(ids, skip_special_tokens);
          },
          nb::arg("ids"), nb::arg("skip_special_tokens") = true)
      .def_prop_ro("stop_ids", &Processor::stop_ids, "Ids at which an answer ends.")
      .def_prop_ro("image_token_id", &Processor::image_token_id)
      .def_prop_ro("vocab_size", &Processor::vocab_size);
}

}  // namespace idefics::python
