//! A node's disk: a file system of its own in an image on a loop device, mounted where only the node sees it.

mod image;
mod loop_device;
mod loss;
#[cfg(test)]
mod tests;

pub use image::Image;
pub use loss::Loss;
